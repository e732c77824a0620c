"""The deltas are parts of the base's own weights, though the config says that training left the base alone.

Why it matters: PiSSA and OLoRA begin with the base's largest directions, which they take out of it; on the whole base
they count twice, an effect ratio of 1.67 on a tiny model. LLaMA-Factory's pissa_init and pissa_backup say
`init_lora_weights: true` of such factors, and so does what PEFT's pissa_init.py writes. A trained delta has hardly
anything in common with its weight (a cosine of 0.003 on a tiny model, of 0.59 in pissa_backup).

What to do: serve the adapter that was converted (pissa_converted), or give init_lora_weights its true value, and what
training began with as --initial-adapter.
"""

from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.config_fields import initialization
from converter.diagnostics import BaseValuesCheck, Problem, Rule, Severity

# How far the deltas may be from what their directions cut out of the base. Of PiSSA's own it is 0, after training some
# tenths; of a delta that was learned the difference is larger than itself.
_MOST_OFF: Final = 0.5


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the adapter if its deltas are the base's own parts. Of a base without weights nothing can be said."""
    if adapter.initial or initialization(adapter.config) or not adapter.pairs:
        return
    from converter.values.initial_factors import off_from_parts

    off = off_from_parts(adapter.pairs, base)
    if off is not None and off < _MOST_OFF:
        found = f"are what their directions cut out of {base.label}'s own weights, off by {off:.2g}"
        yield Problem(
            "init_lora_weights", f"says nothing of it, but the deltas {found}: on the whole base they count twice"
        )


RULE = Rule("NM006", "delta-of-the-base", Severity.WARNING, BaseValuesCheck(check))
