"""The rotary embedding that a Hugging Face config asks for, and whether llama.cpp's graph has it.

transformers 5 writes ``rope_parameters``, with one entry per kind of layer where they differ (Gemma 3); transformers 4
wrote ``rope_theta``, ``rope_local_base_freq`` and ``rope_scaling``. What the types compute: modeling_rope_utils.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from converter.architectures import Architecture
from converter.read.base_model import BaseModel

# The fields of each type that are converted; another one would change the rotation in silence.
_FIELDS: Mapping[str, frozenset[str]] = {
    "linear": frozenset({"factor", "original_max_position_embeddings"}),
    "yarn": frozenset({"factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
    "longrope": frozenset(
        {"factor", "long_factor", "short_factor", "attention_factor", "original_max_position_embeddings"}
    ),
}
_NEEDED: Mapping[str, frozenset[str]] = {
    "linear": frozenset({"factor"}),
    "yarn": frozenset({"factor"}),
    "llama3": _FIELDS["llama3"],
    "longrope": frozenset({"long_factor", "short_factor"}),
}
_OF_EVERY_TYPE = frozenset({"type", "rope_type", "rope_theta", "partial_rotary_factor"})


@dataclass(frozen=True, slots=True)
class Rope:
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
    if architecture is None or "rope_theta" not in architecture.config_defaults:
        return None
    whole = _mapping(config.get("rope_parameters")) or _mapping(config.get("rope_scaling"))
    everywhere = _mapping(whole.get("full_attention")) or {k: v for k, v in whole.items() if not isinstance(v, dict)}
    windowed = _mapping(whole.get("sliding_attention"))
    local = windowed.get("rope_theta", architecture.setting(config, "rope_local_base_freq"))
    stated = _type(everywhere)
    return Rope(
        "longrope" if stated == "su" else stated,
        _number(everywhere.get("rope_theta"), architecture.setting(config, "rope_theta")),
        _float(local) if isinstance(local, int | float) else None,
        _number(everywhere.get("partial_rotary_factor"), _partial(architecture, config)),
        _type(windowed),
        _with_original_length(everywhere, config, architecture),
    )


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


def rope_fault(base: BaseModel) -> str | None:
    """Why llama.cpp's graph can't rotate as the config says; None where it can."""
    rope, architecture = rope_of(base), base.architecture
    if rope is None or architecture is None:
        return None
    if rope.partial != 1.0 and not architecture.partial_rope:
        return f"rotates {rope.partial:g} of each head, wanted all of it"
    if rope.local_type != "default":
        return f"has the rope type {rope.local_type!r} in windowed layers, wanted default"
    if rope.type not in ("default", *architecture.rope):
        has = ", ".join(("default", *architecture.rope))
        return f"has the rope type {rope.type!r}; llama.cpp's {architecture.name} has {has}"
    return _field_fault(rope) if rope.type != "default" else None


# What llama.cpp's graphs take for granted: they don't read the keys that its converter writes.
_YARN_BETAS: Mapping[str, float] = {"beta_fast": 32.0, "beta_slow": 1.0}


def _field_fault(rope: Rope) -> str | None:
    for name, wanted in _YARN_BETAS.items():
        if rope.number(name, wanted) != wanted:
            return f"has {name} {rope.fields[name]}, wanted {wanted:g}"
    odd = sorted({*rope.fields} - _FIELDS[rope.type] - _OF_EVERY_TYPE)
    lacking = sorted(name for name in _NEEDED[rope.type] if rope.fields.get(name) is None)
    if not odd and not lacking:
        return None
    what = f"with {', '.join(odd)}" if odd else f"without {', '.join(lacking)}"
    return f"has the rope type {rope.type!r} {what}, which is not converted"
