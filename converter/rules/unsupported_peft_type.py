"""The adapter is not a LoRA.

Why it matters: AdaLoRA, LoHa, LoKr, IA3, VeRA, OFT and the others change weights by other formulas, and prompt tuners
change no weights at all: llama.cpp's LoRA files hold neither. convert_lora_to_gguf.py ends in `KeyError:
'lora_alpha'` or `Unexpected name`.

What to do: merge it with PEFT (merge_and_unload) where the method allows it, and convert the merged model; or train a
LoRA.
"""

from collections.abc import Iterator
from typing import Final

from converter.diagnostics import AdapterCheck, Problem, Rule, Severity
from converter.read.adapter import Adapter

# peft/utils/peft_types.py, PEFT 0.21.2: the methods that only add virtual tokens or activations.
_PROMPTS: Final = frozenset(
    {"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT", "CARTRIDGE"}
)


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield a peft_type other than LORA."""
    config = adapter.config
    if config is None or config.peft_type == "LORA" or any(field == "peft_type" for field, _, _ in config.malformed):
        return
    if config.peft_type is None:
        yield Problem("peft_type", "is missing, wanted LORA")
    else:
        nature = ", which learns prompts and changes no weights" if config.peft_type in _PROMPTS else ""
        yield Problem("peft_type", f"is {config.peft_type}{nature}; wanted LORA")


RULE = Rule("CF005", "unsupported-peft-type", Severity.ERROR, AdapterCheck(check))
