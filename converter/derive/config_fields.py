"""What becomes of each field of an adapter's config: every one PEFT writes for LoRA, and what it means for the weights.

Source: peft/tuners/lora/config.py and peft/config.py, PEFT 0.21.2. A field that is not in ``FIELDS`` and holds a
value is refused (rule CF004): rsLoRA and alpha_pattern were once such fields, and tools that skipped them lost them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from converter.derive.peft_methods import peft_method
from converter.read.adapter_config import AdapterConfig

# applied: changes the served weights, and is part of every conversion.
# selects: says which modules have tensors; the tensors themselves are what is applied.
# training: only matters while training.
# about: says where the adapter came from.
# default: any value but the default changes the weights in a way that is not converted, so it is refused.
Fate = Literal["applied", "selects", "training", "about", "default"]


class Field(NamedTuple):
    """One field of LoraConfig: its fate, and the harmless values beside null, false and empty ones."""

    fate: Fate
    harmless: tuple[str | bool, ...] = ()


FIELDS: Final[Mapping[str, Field]] = MappingProxyType(
    {
        "peft_type": Field("applied"),
        "r": Field("applied"),
        "lora_alpha": Field("applied"),
        "use_rslora": Field("applied"),
        "rank_pattern": Field("applied"),
        "alpha_pattern": Field("applied"),
        "modules_to_save": Field("applied"),
        "ensure_weight_tying": Field("applied"),
        "use_dora": Field("applied"),
        "lora_bias": Field("applied"),
        "trainable_token_indices": Field("applied"),
        "layer_replication": Field("applied"),
        "alora_invocation_tokens": Field("default"),
        "target_modules": Field("selects"),
        "target_parameters": Field("selects"),
        "exclude_modules": Field("selects"),
        "layers_to_transform": Field("selects"),
        "layers_pattern": Field("selects"),
        "bias": Field("selects"),
        # PEFT sets it by the kind of each layer, whatever it says: the delta is B @ A either way (LoraModel).
        "fan_in_fan_out": Field("training"),
        "lora_dropout": Field("training"),
        "inference_mode": Field("training"),
        "runtime_config": Field("training"),
        "loftq_config": Field("training"),
        "eva_config": Field("training"),
        "corda_config": Field("training"),
        "lora_ga_config": Field("training"),
        "velora_config": Field("training"),
        "qalora_group_size": Field("training"),
        "megatron_core": Field("training"),
        "task_type": Field("about"),
        "auto_mapping": Field("about"),
        "peft_version": Field("about"),
        "base_model_name_or_path": Field("about"),
        "revision": Field("about"),
        "use_qalora": Field("default"),
        "use_bdlora": Field("default"),
        "init_lora_weights": Field("default", (True, "gaussian", "orthogonal", "eva", "mica")),
        "megatron_config": Field("default"),
        "arrow_config": Field("default"),
        "kasa_config": Field("default"),
        "monteclora_config": Field("default"),
    }
)


def unknown_fields(config: AdapterConfig) -> tuple[str, ...]:
    """Fields that hold a value, and that PEFT's config of this method doesn't have."""
    method = peft_method(config.peft_type)
    if method is None and not config.is_lora:
        return ()
    known = method.fields if method else FIELDS
    return tuple(name for name, value in config.raw.items() if name not in known and not holds_nothing(value))


def unsupported_fields(config: AdapterConfig) -> tuple[str, ...]:
    """Fields whose value changes the served weights in a way that is not converted, whatever the base is."""
    method = peft_method(config.peft_type)
    if method:
        return tuple(name for name, wanted in method.required.items() if config.raw.get(name, wanted) != wanted)
    return tuple(
        name
        for name, value in config.raw.items()
        if name in FIELDS and FIELDS[name].fate == "default" and not _is_harmless(name, value)
        if name != "init_lora_weights" or not initialization(config)
    )


def initialization(config: AdapterConfig | None) -> str | None:
    """The initialisation that took its factors' product out of the base before training, if there was one.

    pissa_init, olora_init, corda_init and lora_ga_init in peft/tuners/lora/layer.py.
    """
    value = config.raw.get("init_lora_weights") if config and config.is_lora else None
    name = value.lower() if isinstance(value, str) else ""
    return name if name in ("olora", "corda", "lora_ga") or name.startswith("pissa") else None


def is_of_bare_model(config: AdapterConfig | None) -> bool:
    """Whether the config says that the trained model had no head (AutoModel), so that its paths lack ``model.``.

    PEFT writes the task that it was given, and without one the model's class (PeftModel.save_pretrained).
    """
    raw = config.raw if config else {}
    mapping = raw.get("auto_mapping")
    kind = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    is_bare = isinstance(kind, str) and kind.endswith("Model") and not kind.endswith(("HeadModel", "HeadsModel"))
    return raw.get("task_type") == "FEATURE_EXTRACTION" or is_bare


def _is_harmless(name: str, value: object) -> bool:
    return holds_nothing(value) or any(
        value is ok or (isinstance(ok, str) and value == ok) for ok in FIELDS[name].harmless
    )


def holds_nothing(value: object) -> bool:
    """True for null, false and empty values. 0 is a value: a tool that skips it may skip a scale."""
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)
