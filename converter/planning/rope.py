"""What a GGUF says of the rotary embedding: keys, and the factors of each frequency where a type has them.

Keys and tensors: set_gguf_parameters and generate_extra_tensors in conversion/base.py, llama.py and phi.py of
https://github.com/ggml-org/llama.cpp; what the types compute: modeling_rope_utils.py of transformers.
"""

from collections.abc import Iterable, Iterator
from math import log, pi, sqrt

from converter.derive.base_model import BaseModel
from converter.derive.rope import Rope, rope_of
from converter.planning.conversion_plan import NewArray, NewKeyValue
from converter.read.gguf_header import INT32
from converter.sources import Given


def rope_key_values(base: BaseModel) -> Iterator[NewKeyValue]:
    """The keys of a Hugging Face base's rotary embedding."""
    rope = rope_of(base)
    if rope is None or base.architecture is None:
        return
    name = f"{base.architecture.name}.rope"
    if "rope.dimension_count" not in base.architecture.metadata.dims:
        yield NewKeyValue(f"{name}.dimension_count", n_rotated(base, rope))
    yield NewKeyValue(f"{name}.freq_base", _stretched(rope, n_rotated(base, rope)))
    if rope.local_theta is not None:
        yield NewKeyValue(f"{name}.freq_base_swa", rope.local_theta)
    for key, value in _scaling(base, rope):
        yield NewKeyValue(f"{name}.scaling.{key}", value)
    for key, field in base.architecture.metadata.rope.items():
        if field in rope.fields:
            yield NewKeyValue(f"{base.architecture.name}.{key}", rope.number(field, 0.0))


def rope_arrays(base: BaseModel) -> Iterator[NewArray]:
    """The sections of positions, of a graph that has them."""
    rope = rope_of(base)
    if rope and base.architecture and base.architecture.graph.mrope:
        stated = rope.fields.get("mrope_section", base.architecture.graph.mrope)
        sections = (*(stated if isinstance(stated, list) else ()), 0, 0, 0, 0)[:4]
        yield NewArray(f"{base.architecture.name}.rope.dimension_sections", INT32, sections)


def _stretched(rope: Rope, n: int) -> float:
    """The base of the rotation of ``n`` elements: HunYuan's alpha makes it larger, once and for all."""
    return rope.theta * rope.number("alpha", 1.0) ** (n / (n - 2)) if rope.type == "dynamic" else rope.theta


def n_rotated(base: BaseModel, rope: Rope) -> int:
    """How many elements of each head are rotated."""
    return int(base.dims["head_dim"] * rope.partial)


def _scaling(base: BaseModel, rope: Rope) -> Iterator[tuple[str, str | int | float]]:
    if rope.type in {"linear", "yarn", "longrope"}:
        yield "type", rope.type
    if rope.type in {"linear", "yarn"}:
        yield "factor", rope.number("factor", 1.0)
    if rope.type in {"yarn", "longrope"}:
        yield "original_context_length", int(rope.number("original_max_position_embeddings", 0))
    if rope.type == "longrope":
        yield "attn_factor", _long_attention_factor(base, rope)
    if rope.type == "yarn" and "attention_factor" in rope.fields:
        # llama.cpp multiplies this by 1 + 0.1 log(factor), which is transformers' own default.
        yield "attn_factor", rope.number("attention_factor", 1.0) / (1.0 + 0.1 * log(rope.number("factor", 1.0)))


def _long_attention_factor(base: BaseModel, rope: Rope) -> float:
    stated = rope.fields.get("attention_factor")
    if isinstance(stated, int | float):
        return float(stated)
    original = rope.number("original_max_position_embeddings", 0)
    stretched = rope.number("factor", float(str(base.config.get("max_position_embeddings", original))) / original)
    return sqrt(1.0 + log(stretched) / log(original)) if stretched > 1.0 else 1.0


def rope_factors(base: BaseModel) -> Iterator[tuple[str, Given]]:
    """The tensors that llama.cpp divides the frequencies by, of the types that have a factor for each."""
    rope = rope_of(base)
    if rope and rope.type == "llama3":
        yield "rope_freqs.weight", _vector(_llama3_factors(base, rope))
    if rope and base.architecture and "proportional" in base.architecture.graph.rope:
        yield "rope_freqs.weight", _vector(_proportional_factors(base, rope))
    if rope and rope.type == "longrope":
        for name in ("long", "short"):
            factors = rope.fields.get(f"{name}_factor")
            yield f"rope_factors_{name}.weight", _vector(factors if isinstance(factors, list) else [])


def _vector(values: Iterable[float]) -> Given:
    return Given.of([value] for value in values)


def _proportional_factors(base: BaseModel, rope: Rope) -> Iterator[float]:
    """The first part of a head's frequencies is left alone, the others are made too slow to turn (Gemma 4)."""
    name, trait = base.architecture.metadata.dims["rope.dimension_count"] if base.architecture else ("head_dim", "")
    head_dim = base.dims_with(trait)[name]
    for i in range(head_dim // 2):
        yield 1.0 if i < int(head_dim * rope.partial / 2) else 1e30


def _llama3_factors(base: BaseModel, rope: Rope) -> Iterator[float]:
    """Long waves are stretched by ``factor``, short ones left alone, those between by something between."""
    n, original = n_rotated(base, rope), rope.number("original_max_position_embeddings", 0)
    factor, low, high = (rope.number(name, 1.0) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    for i in range(0, n, 2):
        length = 2 * pi * rope.theta ** (i / n)
        if length < original / high:
            yield 1.0
        elif length > original / low:
            yield factor
        else:
            smooth = (original / length - low) / (high - low)
            yield 1.0 / ((1.0 - smooth) / factor + smooth)
