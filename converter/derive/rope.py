"""The rotary embedding that a Hugging Face config asks for.

transformers 5 writes ``rope_parameters``, with one entry per kind of layer where they differ (Gemma 3); transformers 4
wrote ``rope_theta``, ``rope_local_base_freq`` and ``rope_scaling``. What the types compute: modeling_rope_utils.py.
"""

from collections.abc import Mapping
from math import inf
from typing import NamedTuple

from converter.architectures import Architecture
from converter.derive.base_model import BaseModel


class Rope(NamedTuple):
    """``type`` default, linear, yarn, llama3 or longrope, with its ``fields``; ``local_*`` of windowed layers."""

    type: str
    theta: float
    local_theta: float | None
    partial: float
    local_type: str
    fields: Mapping[str, object]

    def number(self, field: str, otherwise: float) -> float:
        """A field's number, or ``otherwise`` where it has none."""
        value = self.fields.get(field)
        return _float(value) if isinstance(value, int | float) else otherwise


def rope_of(base: BaseModel) -> Rope | None:
    """The rotary embedding of a Hugging Face base; None where its architecture has none."""
    architecture, config = base.architecture, base.config
    if architecture is None or "rope_theta" not in architecture.config.defaults:
        return None
    stated = (config.get("rope_parameters"), config.get("rope_scaling"), _default(architecture, config))
    whole = next((fields for fields in map(_mapping, stated) if fields), {})
    everywhere = _mapping(whole.get("full_attention")) or {k: v for k, v in whole.items() if not isinstance(v, dict)}
    windowed = _mapping(whole.get("sliding_attention"))
    local = windowed.get("rope_theta", architecture.setting(config, "rope_local_base_freq"))
    kind = _type(everywhere)
    return Rope(
        {"su": "longrope", "mrope": "default"}.get(kind, kind),
        _number(everywhere.get("rope_theta"), architecture.setting(config, "rope_theta")),
        _float(local) if isinstance(local, int | float) else None,
        _number(everywhere.get("partial_rotary_factor"), _partial(architecture, config)),
        _type(windowed),
        _with_original_length(everywhere, config, architecture),
    )


def _default(architecture: Architecture, config: Mapping[str, object]) -> object:
    """What the config's class takes where config.json says nothing of rotation."""
    return None if "rope_theta" in config else architecture.config.defaults.get("rope_parameters")


def _type(fields: Mapping[str, object]) -> str:
    return str(fields.get("rope_type") or fields.get("type") or "default")


def _with_original_length(
    fields: Mapping[str, object], config: Mapping[str, object], architecture: Architecture
) -> Mapping[str, object]:
    """LongRoPE's and YaRN's original length may stand beside the fields; else it is the context's."""
    name = "original_max_position_embeddings"
    context = architecture.setting(config, "max_position_embeddings")
    stated = (fields.get(name), architecture.setting(config, name))
    length = next((value for value in stated if value is not None), context)
    return {**{key: value for key, value in fields.items() if value is not None}, name: length}


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _number(value: object, otherwise: object) -> float:
    value = otherwise if value is None else value
    return _float(value) if isinstance(value, int | float) else 0.0


def _float(value: float) -> float:
    """The number; infinity for a whole one that no float holds."""
    try:
        return float(value)
    except OverflowError:
        return inf


def _partial(architecture: Architecture, config: Mapping[str, object]) -> object:
    value = architecture.setting(config, "partial_rotary_factor")
    return 1.0 if value is None else value
