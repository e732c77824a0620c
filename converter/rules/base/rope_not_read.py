"""The base's config asks for a rotary embedding that llama.cpp's graph of its architecture doesn't compute.

Why it matters: positions would be rotated otherwise than in training: the model loads, and is wrong from some position
on, or everywhere.

What to do: give a GGUF of the base that is known to work, or serve the model with another program.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from converter.architectures import Architecture
from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.rope import Rope, rope_of
from converter.diagnostics import WHOLE_BASE, BaseCheck, Problem, Rule, Severity

# The fields of each type that are converted; another one would change the rotation in silence.
_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "linear": frozenset({"factor", "original_max_position_embeddings"}),
    "yarn": frozenset({"factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
    "dynamic": frozenset(
        {"alpha", "factor", "mscale_all_dim", "original_max_position_embeddings", "beta_fast", "beta_slow", "mscale"}
    ),
    "proportional": frozenset({"original_max_position_embeddings"}),
    "longrope": frozenset(
        {"factor", "long_factor", "short_factor", "attention_factor", "original_max_position_embeddings"}
    ),
}
_NEEDED: Final[Mapping[str, frozenset[str]]] = {
    "linear": frozenset({"factor"}),
    "yarn": frozenset({"factor"}),
    "llama3": _FIELDS["llama3"],
    "dynamic": frozenset({"alpha"}),
    "proportional": frozenset(),
    "longrope": frozenset({"long_factor", "short_factor"}),
}
_MROPE: Final = ("mrope_section", "mrope_interleaved")  # judged by itself
# max_position_embeddings is the config's own, repeated.
_OF_EVERY_TYPE: Final = frozenset(
    {"type", "rope_type", "rope_theta", "partial_rotary_factor", "max_position_embeddings", *_MROPE}
)


# What llama.cpp's graphs take for granted: they don't read the keys that its converter writes.
_YARN_BETAS: Final[Mapping[str, float]] = {"beta_fast": 32.0, "beta_slow": 1.0}


def check(_adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield why the rotary embedding can't be had."""
    rope = rope_of(base) if base.is_convertible_checkpoint else None
    fault = _fault(rope, base.architecture) if rope and base.architecture else None
    if fault:
        yield Problem("config.json", fault, WHOLE_BASE)


def _fault(rope: Rope, architecture: Architecture) -> str | None:
    if rope.partial != 1.0 and not architecture.graph.partial_rope:
        return f"rotates {rope.partial:g} of each head, wanted all of it"
    if not _has_sections(rope, architecture):
        wanted = "wanted its sections" if architecture.graph.mrope else "wanted none"
        return f"has the mrope_section {rope.fields.get('mrope_section')}, {wanted}"
    if rope.local_type != "default":
        return f"has the rope type {rope.local_type!r} in windowed layers, wanted default"
    if rope.type not in ("default", *architecture.graph.rope):
        has = ", ".join(("default", *architecture.graph.rope))
        return f"has the rope type {rope.type!r}; llama.cpp's {architecture.name} has {has}"
    return _field_fault(rope, {*architecture.metadata.rope.values()}) if rope.type != "default" else None


def _has_sections(rope: Rope, architecture: Architecture) -> bool:
    """Whether positions have sections where the graph has them, and only there."""
    sections = rope.fields.get("mrope_section", architecture.graph.mrope or None)
    if not architecture.graph.mrope:
        return sections is None
    return isinstance(sections, list) and 1 <= len(sections) <= 4 and all(type(n) is int and n >= 0 for n in sections)


def _field_fault(rope: Rope, read: set[str]) -> str | None:
    """``read`` are fields that the architecture has keys of its own for."""
    for name, wanted in _YARN_BETAS.items():
        if rope.number(name, wanted) != wanted:
            return f"has {name} {rope.fields[name]}, wanted {wanted:g}"
    # An mscale counts beside mscale_all_dim only, and llama.cpp takes it for 1 (yarn_attn_factor in llama-context.cpp).
    is_one = rope.number("mscale", 1.0) == 1.0 and "mscale_all_dim" in read & {*rope.fields}
    mscale = {"mscale"} if is_one else set()
    odd = sorted({*rope.fields} - _FIELDS[rope.type] - _OF_EVERY_TYPE - read - mscale)
    lacking = sorted(name for name in _NEEDED[rope.type] if rope.fields.get(name) is None)
    if not odd and not lacking:
        return None
    what = f"with {', '.join(odd)}" if odd else f"without {', '.join(lacking)}"
    return f"has the rope type {rope.type!r} {what}, which is not converted"


RULE = Rule("BM044", "rope-not-read", Severity.ERROR, BaseCheck(check), gguf=True)
