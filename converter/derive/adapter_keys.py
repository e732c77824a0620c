"""The keys of an adapter's state dict: which module a tensor belongs to, and what it is of it.

Key layout: ``get_peft_model_state_dict`` in peft/utils/save_and_load.py (PEFT 0.21.2).
"""

import re
from functools import cache
from typing import TYPE_CHECKING, Final, Literal

from converter.derive.config_fields import is_of_bare_model
from converter.derive.remembered import remembered
from converter.read.limits import KEY_LENGTH

if TYPE_CHECKING:
    from converter.derive.foreign_keys import ForeignKey
    from converter.read.adapter_config import AdapterConfig

Role = Literal[
    "lora_A",
    "lora_B",
    "lora_embedding_A",
    "lora_embedding_B",
    "lora_magnitude_vector",
    "lora_B.bias",
    "trainable_tokens_delta",
    "base_layer.weight",
    "base_layer.bias",
    "weight",
    "bias",
    "original",  # a module as it was before training, which PEFT sometimes saves beside the trained one
    "copy",  # the same numbers as another tensor of the file
    "tuner",  # one of the tensors that another method than LoRA keeps for a module
    "shared",  # one that such a method keeps for all its modules
    "unknown",
]

# PEFT drops the adapter's name from keys; state dicts saved by hand keep it, and PEFT loads ``lora_A.default.weight``.
_NAME: Final = r"(?:\.(?!weight$|bias$)\w+)?"
_SUFFIXES: Final[dict[Role, str]] = {
    "lora_A": rf"lora_A{_NAME}\.weight",
    "lora_B": rf"lora_B{_NAME}\.weight",
    "lora_embedding_A": rf"lora_embedding_A{_NAME}",
    "lora_embedding_B": rf"lora_embedding_B{_NAME}",
    "lora_magnitude_vector": rf"lora_magnitude_vector{_NAME}(?:\.weight)?",
    "lora_B.bias": rf"lora_B{_NAME}\.bias",
    "trainable_tokens_delta": rf"token_adapter\.trainable_tokens_delta{_NAME}",
    "base_layer.weight": r"(?:token_adapter\.)?base_layer\.weight",
    "base_layer.bias": r"base_layer\.bias",
    "weight": r"(?:modules_to_save\.(?:\w+\.)?)?weight",
    "bias": r"(?:modules_to_save\.(?:\w+\.)?)?bias",
    "original": r"original_module\.(?:weight|bias)",
}
_ROLES: Final = {role: re.compile(rf"(?P<module>.+?)\.{suffix}") for role, suffix in _SUFFIXES.items()}
_PREFIX_OF_ALL: Final = "base_model."  # what all modules of a method share (VeRA's vera_A) lies beside the model
_PEFT_PREFIX: Final = "base_model.model."
_PEFT_PREFIXES: Final = re.compile(r"\A(?:base_model\.model\.)+")
# Parts of a path that PEFT puts between a module and its parameters; a key with one left over is of no known form.
_FOREIGN_PART: Final = re.compile(
    r"(?:^|\.)(?:lora_|ia3_|hada_|lokr_|vera_|oft_|token_adapter|trainable_tokens|modules_to_save|original_module)"
)

# One of these is in every key that is told in foreign_keys.py, which other adapters don't need.
_FOREIGN_MARKS: Final = (
    *("_orig_mod", "_wrapped_module", "unembed_tokens", "lora_a", "lora_b", "lora_up", "lora_down", "lora_unet"),
    *("lora_te", ".linear_", "attention.w", "feed_forward.w"),
)
_FOREIGN_BEGINNINGS: Final = ("module.", "thinker.", "layers.", "embed_tokens.", "norm.")


# The name of an adapter left in a key: PEFT puts its own between, and finds no place for both unless they are one.
_NAMED: Final = r"\.lora_(?:A|B|embedding_A|embedding_B|magnitude_vector)\.(?!(?:default\.)?(?:weight|bias)$|default$)"


@cache
def _foreign_marks() -> re.Pattern[str]:
    return re.compile("|".join((*map(re.escape, _FOREIGN_MARKS), _NAMED)))


def foreign_key(key: str, config: "AdapterConfig | None") -> "ForeignKey | None":
    """What a key is, if it is none that PEFT loads into the trained model and its origin is known."""
    foreign = foreign_key_of_any(key)
    return None if foreign and foreign.is_bare and is_of_bare_model(config) else foreign


@remembered
def foreign_key_of_any(key: str) -> "ForeignKey | None":
    """What a key is for an adapter whose config doesn't say that its model was a bare one."""
    bare = key.removeprefix(_PEFT_PREFIX)
    if len(key) > KEY_LENGTH:
        return None
    is_prefixed_once = key.startswith(_PREFIX_OF_ALL) and not bare.startswith(_PEFT_PREFIX)
    if is_prefixed_once and not bare.startswith(_FOREIGN_BEGINNINGS) and not _foreign_marks().search(key):
        return None
    from converter.derive.foreign_keys import foreign_key as told

    return told(key)


def bare_key(key: str) -> str:
    """A key without what PEFT's own model puts before the module's path."""
    bare = key.removeprefix(_PEFT_PREFIX)
    return _PEFT_PREFIXES.sub("", bare, count=1) if bare.startswith(_PEFT_PREFIX) else bare


def parse_key(key: str) -> tuple[str, Role]:
    """The module's path and the role of a state dict key. A key of no known form is its own path, role unknown."""
    if len(key) > KEY_LENGTH:
        return key, "unknown"
    bare = bare_key(key)
    for role, pattern in _ROLES.items():
        match = pattern.fullmatch(bare)
        if match and not _FOREIGN_PART.search(match["module"]):
            return match["module"], role
    return key, "unknown"
