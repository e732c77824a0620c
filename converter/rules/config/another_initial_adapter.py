"""What --initial-adapter gives is not what the adapter's training began with.

Why it matters: its deltas are subtracted. Another adapter's would leave a model that nobody trained; the trained
adapter's own would leave the base.

What to do: give the directory that was saved before training, of the same run (PEFT's guides for PiSSA and OLoRA save
it with init_lora_weights = True).
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter, LoraPair
from converter.derive.base_model import BaseModel
from converter.derive.config_fields import initialization
from converter.diagnostics import BaseValuesCheck, Problem, Rule, Severity

# How far lora_B's columns may be from being the base's own. Another adapter's are off by 1; quantising a base to 4 bits
# moves the directions of its largest singular values by some percent.
_MOST_OFF = 0.2


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each module whose initial factors are missing, of another shape or scale, or not of this base."""
    if adapter.initial is None:
        return
    if not initialization(adapter.config):
        yield Problem("init_lora_weights", "is of a kind that leaves the base alone: there is nothing to subtract")
        return
    # A base layer that was saved with the adapter is what was left of the base already.
    left = {tensor.module for tensor in adapter.base_layers if tensor.role == "base_layer.weight"}
    ours = {pair.module: pair for pair in adapter.pairs if pair.module not in left}
    theirs = {pair.module: pair for pair in adapter.initial.pairs if pair.module not in left}
    for module in sorted(ours.keys() ^ theirs.keys()):
        yield Problem(module, "has a LoRA in one of the adapter and the initial adapter only")
    for module in sorted(ours.keys() & theirs.keys()):
        difference = _difference(ours[module], theirs[module]) or _foreign(adapter, theirs[module], base)
        if difference:
            yield Problem(module, f"{difference} in the initial adapter")


def _difference(ours: LoraPair, theirs: LoraPair) -> str | None:
    from converter.values.numbers import are_equal

    if ours.shape != theirs.shape or ours.rank != theirs.rank:
        return f"has rank {theirs.rank} and shape {theirs.shape}, not {ours.rank} and {ours.shape},"
    if ours.scaling != theirs.scaling:
        return f"is scaled by {theirs.scaling:g}, not by {ours.scaling:g},"
    if are_equal(ours.a.tensor, theirs.a.tensor) and are_equal(ours.b.tensor, theirs.b.tensor):
        return "is the same as in the trained adapter"
    return None


def _foreign(adapter: Adapter, initial: LoraPair, base: BaseModel) -> str | None:
    from converter.values.initial_factors import off_from_base

    name = initialization(adapter.config)
    off = off_from_base(name or "", initial, base)
    return f"is off from {base.label}'s own directions by {off:.2g}" if off is not None and off > _MOST_OFF else None


RULE = Rule("CF014", "another-initial-adapter", Severity.ERROR, BaseValuesCheck(check), gguf=True)
