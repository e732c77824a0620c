"""The adapter's method is not LoRA, and what it does can't be deployed this way.

Why it matters: convert_lora_to_gguf.py ends in `KeyError: 'lora_alpha'` or `Unexpected name`. A LoRA GGUF holds
products of two matrices: what IA3, LoHa, OFT and the others do to a weight is none. Prompt tuners change no weights,
routers change them anew for every input, and PEFT takes the frozen parts of AdaMSS, FRoD, OSF and PSOFT from singular
vectors of the base, whose signs are each machine's own.

What to do: `adapter-to-gguf ADAPTER --base BASE --to model -o model.gguf` where the method can be merged: PEFT itself
does it, exactly (the extra `train` has what that needs). For the others train a LoRA.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.peft_methods import PROMPTS, REBUILT, ROUTERS, peft_method
from converter.diagnostics import EVERY, LORA, AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield a peft_type other than LORA that stands in the way."""
    config = adapter.config
    if config is None or config.peft_type == "LORA" or any(field == "peft_type" for field, _, _ in config.malformed):
        return
    method = peft_method(config.peft_type)
    if config.peft_type is None:
        yield Problem("peft_type", "is missing, wanted LORA")
    elif method is None:
        yield Problem("peft_type", f"is {config.peft_type}, {_nature(config.peft_type)}; wanted LORA", EVERY)
    elif method.needs_peft:
        yield Problem("peft_type", f"is {method.name}, which no LoRA file can hold; use --to model", LORA)


def _nature(peft_type: str) -> str:
    if peft_type in PROMPTS:
        return "which learns prompts and changes no weights"
    if peft_type in ROUTERS:
        return "whose change depends on the input"
    if peft_type in REBUILT:
        return "whose frozen parts are not saved, and not the same on every machine"
    return "which this version doesn't know"


RULE = Rule("CF005", "unsupported-peft-type", Severity.ERROR, AdapterCheck(check), gguf=True)
