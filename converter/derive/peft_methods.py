"""PEFT's methods other than LoRA: which of them change weights, by which tensors, with which fields of the config.

Data in peft_methods.toml; sources there.
"""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

# The method that PEFT's prompt tuners have in common: they add tokens or activations, and change no weights.
PROMPTS: Final = frozenset(
    {"ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"}
)
# A router weighs several adapters by the input (the task's number in POLY), or a second network runs beside the model.
ROUTERS: Final = frozenset({"LILY", "POLY", "SHADOW", "XLORA"})
# PEFT doesn't save their frozen parts and takes them from singular vectors, eigenvectors or clusters of the base's
# weights when it loads them. Their signs and their order are another machine's or library's own.
REBUILT: Final = frozenset({"ADAMSS", "FROD", "OSF", "PSOFT"})
# Read as what they are, whole norms and rows of the embedding: no PEFT is needed.
PLAIN: Final = frozenset({"LN_TUNING", "TRAINABLE_TOKENS"})


class PeftMethod(NamedTuple):
    """A method that changes weights: the names of its tensors and its config's fields."""

    name: str
    tensors: tuple[str, ...]
    fields: frozenset[str]
    required: Mapping[str, object]

    @property
    def needs_peft(self) -> bool:
        """Whether its change is computed by PEFT itself."""
        return self.name not in PLAIN

    def module_of(self, path: str) -> str | None:
        """The module that a tensor belongs to: what comes before the tensor's name, "" for one that all modules share.

        None where no part of ``path`` is such a name.
        """
        found = _tensor_pattern(self.tensors).match(path)
        return found["module"] if found else None


@cache
def _tensor_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"(?P<module>(?:[^.]+\.)*?[^.]+|)\.?(?<![^.])(?:{'|'.join(names)})\w*(?:\.|$)")


@cache
def peft_methods() -> Mapping[str, PeftMethod]:
    """Every method that can be converted, by its peft_type."""
    data = tomllib.loads(Path(__file__).with_name("peft_methods.toml").read_text(encoding="utf-8"))
    common = data["common_fields"]
    return {
        name: PeftMethod(name, tuple(m["tensors"]), frozenset([*common, *m["fields"]]), m.get("required", {}))
        for name, m in data["methods"].items()
    }


def peft_method(peft_type: str | None) -> PeftMethod | None:
    """The method of a config's peft_type; None for LoRA, and for what can't be converted at all."""
    return peft_methods().get(peft_type) if peft_type not in (None, "LORA") else None
