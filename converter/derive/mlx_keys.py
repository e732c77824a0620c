"""The keys of mlx_lm's adapters, and what PEFT calls the same: lora_a (in, r) and lora_b (r, out) are its transposes.

LoRALinear and DoRALinear in mlx_lm/tuner/lora.py and dora.py (mlx-lm 0.32). Its LoRA of an embedding is a tied head's
too, and that of an expert is one of all experts': those keep their names, which PEFT doesn't have.
"""

import re
from typing import Final

from converter.derive.module_paths import EMBEDDINGS, normal_module

_FACTOR: Final = re.compile(r"(?P<module>.+)\.(?P<part>lora_a|lora_b|m)")
_PARTS: Final = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "m": "lora_magnitude_vector.weight"}


def pefts_name(key: str) -> str:
    """The key that PEFT would have given a tensor; the key itself where there is none that says the same."""
    match = _FACTOR.fullmatch(key)
    if match is None or normal_module(match["module"]) in EMBEDDINGS or ".switch_" in key:
        return key
    return f"base_model.model.{match['module']}.{_PARTS[match['part']]}"
