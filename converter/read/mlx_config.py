"""adapter_config.json as mlx_lm writes it, told in PEFT's words.

mlx_lm's LoRA gives a linear the delta scale * (lora_a @ lora_b)^T, whatever its rank, where PEFT's is
alpha / r * lora_B @ lora_A. Of the config it reads fine_tune_type, num_layers and lora_parameters, nothing else
(load_adapters and linear_to_lora_layers in mlx_lm/tuner/utils.py, mlx-lm 0.32).
"""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Final

WEIGHTS_NAME: Final = "adapters.safetensors"
_METHODS: Final = ("lora", "dora")
_MARKS: Final = ("lora_parameters", "fine_tune_type")
_PARAMETERS: Final = "lora_parameters"


def is_of_mlx(raw: Mapping[str, object]) -> bool:
    """Whether a config is mlx_lm's: PEFT always writes peft_type, and none of these."""
    return "peft_type" not in raw and any(mark in raw for mark in _MARKS)


def in_pefts_words(raw: Mapping[str, object]) -> dict[str, object]:
    """The fields of LoraConfig that say the same. What can't be told is left out, as ``malformed`` says of it."""
    method = raw.get("fine_tune_type", "lora")
    rank, scale = _rank(raw), _scale(raw)
    alpha = {"r": rank, "lora_alpha": scale * rank} if rank is not None and scale is not None else {}
    return {
        "peft_type": "LORA" if method in _METHODS else f"MLX {method}",
        "base_model_name_or_path": raw.get("model"),
        "use_dora": method == "dora",
        **alpha,
    }


def malformed(raw: Mapping[str, object]) -> Iterator[tuple[str, str, str]]:
    """The fields that give no scale: field, found, wanted."""
    settings = _settings(raw)
    if _rank(raw) is None:
        yield f"{_PARAMETERS}.rank", json.dumps(settings.get("rank"))[:80], "a whole number from 1"
    if _scale(raw) is None:
        yield f"{_PARAMETERS}.scale", json.dumps(settings.get("scale"))[:80], "a finite number"
    if "alpha" in settings:
        wanted = "none: mlx_lm multiplied by alpha / rank once, and doesn't any more"
        yield f"{_PARAMETERS}.alpha", json.dumps(settings["alpha"])[:80], wanted
    n_layers = raw.get("num_layers")
    if type(n_layers) is not int:
        yield "num_layers", json.dumps(n_layers)[:80], "a whole number"


def first_layer(raw: Mapping[str, object], n_layers: int) -> int:
    """The first layer that mlx_lm gives a delta, of ``n_layers``: num_layers counts from the last, 0 and -1 are all."""
    stated = raw.get("num_layers")
    return max(0, n_layers - stated) if isinstance(stated, int) and stated > 0 else 0


def _settings(raw: Mapping[str, object]) -> Mapping[str, object]:
    settings = raw.get(_PARAMETERS)
    return settings if isinstance(settings, dict) else {}


def _rank(raw: Mapping[str, object]) -> int | None:
    rank = _settings(raw).get("rank")
    return rank if type(rank) is int and rank > 0 else None


def _scale(raw: Mapping[str, object]) -> float | None:
    scale = _settings(raw).get("scale")
    if not isinstance(scale, int | float) or isinstance(scale, bool):
        return None
    return float(scale) if abs(scale) <= sys.float_info.max else None
