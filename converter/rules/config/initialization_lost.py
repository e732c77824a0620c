"""Training began by taking the factors' product out of the base (PiSSA, OLoRA, CorDA, LoRA-GA), and that is lost.

Why it matters: the adapter belongs to the base that was left, which nobody has. On the original base it is worse than
no adapter: an effect ratio of 1.67 for PiSSA on a tiny model, and convert_lora_to_gguf.py gives no message.

What to do: give the adapter as it was before training with --initial-adapter, as PEFT's guides for these methods save
it. PiSSA and OLoRA can be computed again from the base's weights where those are not quantised (the extra `train` has
what that needs); pissa_niter_N is random, CorDA and LoRA-GA depend on data. Or save with PEFT's
path_initial_model_for_weight_conversion: the result is a plain LoRA. Neither that nor this repeats how a base in
bfloat16 was rounded after the product left it: an effect ratio of 2.5e-4 on a tiny model.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.config_fields import initialization
from converter.diagnostics import BaseCheck, Problem, Rule, Severity

_REPEATABLE = ("pissa", "olora")


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the initialisation, unless its factors are given or can be computed again."""
    name = initialization(adapter.config)
    if name is None:
        return
    places = [base.place(pair.module) for pair in adapter.pairs]
    # olora_init decomposes the weight as it is stored, while lora_B and lora_A are of its transpose.
    if name == "olora" and any(place and place.transposed for place in places):
        yield Problem("init_lora_weights", "is olora, which PEFT gets wrong on transposed weights (Conv1D)")
    elif not adapter.initial:
        obstacle = _obstacle(name, adapter, base)
        if obstacle:
            yield Problem("init_lora_weights", f"is {name}: {obstacle}; give what it began with (--initial-adapter)")


def _obstacle(name: str, adapter: Adapter, base: BaseModel) -> str | None:
    """Why the initial factors can't be had from the base."""
    if name not in _REPEATABLE:
        return "its factors are random, or came from data"
    if base.is_quantized or base.quantization or not base.tensors:
        return f"{base.label} has not the weights that its factors came from"
    if adapter.config and adapter.config.layer_replication:
        return "the layers it began with were replicated"
    if any(base.weight(pair.module) is None for pair in adapter.pairs):
        return "it is on modules that have no matrix of their own"
    return None


RULE = Rule("CF012", "initialization-lost", Severity.ERROR, BaseCheck(check), gguf=True)
