"""A setting of the base has a value that no model can be computed with.

Why it matters: llama.cpp aborts at a negative epsilon, and answers with NaN where a rotary base is 0; a whole number
with a fraction would be cut off, and more experts than there are would be looked for. Heads that can't be dealt out to
those of keys and values end llama.cpp at the first token.

What to do: get the base's config.json, or the GGUF, again; a published model has none of these.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from converter.architectures import Architecture
from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.rope import Rope, rope_of
from converter.diagnostics import WHOLE_BASE, BaseCheck, Problem, Rule, Severity

Test = Callable[[object], bool]
Setting = tuple[str, object, str]  # its name, its value, and what is wanted of it

_LARGEST_FLOAT32: Final = 3.4028234663852886e38
_LARGEST_INT32: Final = 2**31 - 1


def check(_adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each such setting."""
    architecture = base.architecture
    if architecture is None or base.quantization:
        return
    found = _of_gguf(base, architecture) if base.format == "gguf" else _of_config(base, architecture)
    for name, value, wanted in (*found, *_of_heads(base)):
        yield Problem(name, f"is {value!r}, wanted {wanted}", WHOLE_BASE)


def _is_float(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST_FLOAT32


def _is_positive(value: object) -> bool:
    return _is_float(value) and isinstance(value, int | float) and value > 0


def _is_scale(value: object) -> bool:
    return _is_float(value) and value != 0


def _is_whole(value: object) -> bool:
    return type(value) is int and 1 <= value <= _LARGEST_INT32


_POSITIVE: Final[tuple[Test, str]] = (_is_positive, "a number above 0")
_SCALE: Final[tuple[Test, str]] = (_is_scale, "a finite number that isn't 0")
_WHOLE: Final[tuple[Test, str]] = (_is_whole, f"a whole number from 1 to {_LARGEST_INT32}")
_COUNT: Final[tuple[Test, str]] = (lambda value: value == 0 or _is_whole(value), "a whole number from 0")
_FLAG: Final[tuple[Test, str]] = (lambda value: isinstance(value, bool), "true or false")
# By the end of the GGUF key; all others count something.
_TESTS: Final[Mapping[str, tuple[Test, str]]] = {
    "epsilon": _POSITIVE,
    "softcapping": _POSITIVE,
    "clamp_kqv": _POSITIVE,
    "scale": _SCALE,
    "sliding_window": _COUNT,
    "shared_kv_layers": _COUNT,
    "leading_dense_block_count": _COUNT,
    "expert_used_count": _COUNT,  # where there are none; else judged beside how many there are
    "expert_weights_norm": _FLAG,
    "use_parallel_residual": _FLAG,
}


def _test_of(key: str) -> tuple[Test, str]:
    return next((test for end, test in _TESTS.items() if key.endswith(end)), _WHOLE)


def _of_heads(base: BaseModel) -> Iterator[Setting]:
    """Of the first layer whose heads don't have as many each of a key's; one without keys has none to share."""
    counts = ((dims.get("n_head", 0), dims.get("n_head_kv", 0)) for dims in base.layer_dims or (base.dims,))
    for n_head, n_head_kv in counts:
        if n_head_kv and n_head % n_head_kv:
            yield "num_attention_heads, num_key_value_heads", (n_head, n_head_kv), "the first a multiple of the second"
            return


def _of_gguf(base: BaseModel, architecture: Architecture) -> Iterator[Setting]:
    """Of a GGUF what llama.cpp takes as it is; a scale or a softcapping of 0 means none there."""
    kv = base.shards[0].kv
    epsilons = (key for key in architecture.metadata.required if key.endswith("epsilon"))
    for key in (*epsilons, "rope.freq_base", "rope.freq_base_swa"):
        name = f"{architecture.name}.{key}"
        if name in kv and not _is_positive(kv[name]):
            yield name, kv[name], _POSITIVE[1]
    name = f"{architecture.name}.expert_used_count"
    yield from _experts(name, kv.get(name, 1), base)


def _of_config(base: BaseModel, architecture: Architecture) -> Iterator[Setting]:
    for key, field in (*architecture.metadata.required.items(), *architecture.metadata.optional.items()):
        value = architecture.setting(base.config, field)
        is_right, wanted = _test_of(key)
        is_judged_elsewhere = key in architecture.metadata.required and not isinstance(value, int | float)  # BM045
        if value is None or is_judged_elsewhere:
            continue
        if not is_right(value):
            yield field, value, wanted
        elif key == "expert_used_count":
            yield from _experts(field, value, base)
    rope = rope_of(base)
    if rope:
        yield from _of_rope(rope, base)


def _experts(name: str, value: object, base: BaseModel) -> Iterator[Setting]:
    n_expert = base.dims.get("n_expert")
    if n_expert and isinstance(value, int) and not 1 <= value <= n_expert:
        yield name, value, f"one to all of the {n_expert} experts"


def _of_rope(rope: Rope, base: BaseModel) -> Iterator[Setting]:
    positive = {"rope_theta": rope.theta, "factor": rope.fields.get("factor")}
    positive |= {
        "alpha": rope.fields.get("alpha"),
        "attention_factor": rope.fields.get("attention_factor"),
        "rope_local_base_freq": rope.local_theta,
    }
    for name, value in positive.items():
        if value is not None and not _is_positive(value):
            yield name, value, _POSITIVE[1]
    n_rotated = base.dims["head_dim"] * rope.partial
    if not (0 < rope.partial <= 1) or int(n_rotated) < 2 or int(n_rotated) % 2:
        yield "partial_rotary_factor", rope.partial, f"a part of the {base.dims['head_dim']} of each head, in pairs"
    original = rope.fields.get("original_max_position_embeddings")
    if rope.type != "default" and not (_is_whole(original) and original != 1):
        yield "original_max_position_embeddings", original, "a whole number from 2"
    if rope.type == "llama3":
        yield from _of_llama3(rope)
    if rope.type == "longrope":
        yield from _of_longrope(rope, int(n_rotated) // 2)


def _of_llama3(rope: Rope) -> Iterator[Setting]:
    low, high = rope.fields.get("low_freq_factor"), rope.fields.get("high_freq_factor")
    if not (
        _is_positive(low)
        and _is_positive(high)
        and rope.number("high_freq_factor", 0) > rope.number("low_freq_factor", 0)
    ):
        yield "low_freq_factor, high_freq_factor", (low, high), "numbers above 0, the second larger"


def _of_longrope(rope: Rope, n: int) -> Iterator[Setting]:
    for name in ("long_factor", "short_factor"):
        factors = rope.fields.get(name)
        if not isinstance(factors, list) or len(factors) != n or not all(map(_is_positive, factors)):
            yield name, factors, f"{n} numbers above 0"


RULE = Rule("BM046", "setting-out-of-range", Severity.ERROR, BaseCheck(check), gguf=True)
