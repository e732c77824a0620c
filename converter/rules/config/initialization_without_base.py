"""Training began by taking the factors' product out of the base (PiSSA, OLoRA, CorDA, LoRA-GA), and no base is given.

Why it matters: on the original base such an adapter is worse than none: an effect ratio of 1.67 for PiSSA on a tiny
model. Whether what it began with can be had again depends on the base.

What to do: name the base with --base. Best save with PEFT's path_initial_model_for_weight_conversion: the result is a
plain LoRA.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.config_fields import initialization
from converter.diagnostics import NoBaseCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield the initialisation."""
    name = None if adapter.initial else initialization(adapter.config)
    if name:
        yield Problem("init_lora_weights", f"is {name}: the adapter belongs to a base that its training changed first")


RULE = Rule("CF013", "initialization-without-base", Severity.ERROR, NoBaseCheck(check), gguf=True)
