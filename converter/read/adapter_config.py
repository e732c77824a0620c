"""adapter_config.json as typed fields: PEFT's own, by PEFT's names.

Source: peft/tuners/lora/config.py and peft/config.py, PEFT 0.21.2.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from converter.read.files import Unreadable, inside, read_whole
from converter.read.limits import CONFIG_NBYTES, LAYERS
from converter.read.strict_json import parsed_json

_LARGEST: Final = sys.float_info.max

# Of the embedding, or of the modules that are named.
TokenIndices = tuple[int, ...] | Mapping[str, tuple[int, ...]]


class AdapterConfig(NamedTuple):
    """An adapter's config: PEFT's fields by PEFT's names.

    A field of the wrong type reads as its default here and is listed in ``malformed`` as (field, found, wanted).
    ``mlx`` is what an adapter of mlx_lm says in its own words; ``raw`` then says the same in PEFT's.
    """

    path: Path
    raw: Mapping[str, object]
    peft_type: str | None = None
    base_model_name_or_path: str | None = None
    r: int = 8
    lora_alpha: float = 8.0
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    ensure_weight_tying: bool = False
    bias: str = "none"
    rank_pattern: Mapping[str, int] = MappingProxyType({})
    alpha_pattern: Mapping[str, float] = MappingProxyType({})
    target_modules: str | tuple[str, ...] | None = None
    exclude_modules: str | tuple[str, ...] | None = None
    layers_to_transform: tuple[int, ...] | None = None
    layers_pattern: tuple[str, ...] = ()
    target_parameters: tuple[str, ...] = ()
    modules_to_save: tuple[str, ...] = ()
    trainable_token_indices: TokenIndices = ()
    layer_replication: tuple[tuple[int, int], ...] = ()
    alora_invocation_tokens: tuple[int, ...] = ()
    malformed: tuple[tuple[str, str, str], ...] = ()
    duplicates: tuple[str, ...] = ()
    mlx: Mapping[str, object] | None = None

    @property
    def is_lora(self) -> bool:
        """Whether the fields are LoraConfig's."""
        return self.peft_type in (None, "LORA")


def read_adapter_config(path: Path) -> AdapterConfig:
    """Read adapter_config.json at ``path``. Raises Unreadable, or OSError where the file can't be read."""
    return _last_stated(read_whole(inside(path), CONFIG_NBYTES))._replace(path=path)


@lru_cache(maxsize=1)  # the adapters that are judged in one run mostly have the same one
def _last_stated(text: bytes) -> AdapterConfig:
    """The config that a file of these bytes states; its path is left open. Raises Unreadable."""
    path = Path()
    duplicates: list[str] = []

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        result = dict(items)
        if len(result) < len(items):
            counts = Counter(name for name, _ in items)
            duplicates.extend(sorted(name for name, n in counts.items() if n > 1))
        return result

    raw = parsed_json(text, object_pairs_hook=pairs)
    if not isinstance(raw, dict):
        raise Unreadable("is not a JSON object")
    if "peft_type" not in raw:
        from converter.read.mlx_config import in_pefts_words, is_of_mlx, malformed

        if is_of_mlx(raw):
            config = _typed(path, in_pefts_words(raw), tuple(duplicates))
            return config._replace(malformed=(*malformed(raw), *config.malformed), mlx=MappingProxyType(raw))
    _refuse_foreign(raw)
    return _typed(path, raw, tuple(duplicates))


# What every method's config calls by the same name. Another method's r can be 0, and its rank_pattern hold masks.
_COMMON: Final = frozenset(
    {"peft_type", "base_model_name_or_path", "bias", "target_modules", "exclude_modules", "layers_to_transform"}
    | {"layers_pattern", "modules_to_save"}
)
# PEFT divides the one by the other, and fails at null; it takes null for a default elsewhere.
_NEVER_NULL: Final = frozenset({"r", "lora_alpha"})
# One of these is in every config of an adapter.
_ESSENTIAL: Final = frozenset({"peft_type", "r", "lora_alpha", "target_modules", "fine_tune_type"})


def _refuse_foreign(raw: Mapping[str, object]) -> None:
    """Raise Unreadable where the object is what a site answered, or another config that was copied to this name."""
    if _ESSENTIAL & raw.keys():
        return
    if isinstance(answer := raw.get("error"), str):
        raise Unreadable(f"is an answer of the site it came from, {answer!r}")
    if "model_type" in raw or "architectures" in raw:
        raise Unreadable(f"is a model's config.json (model_type {raw.get('model_type')!r}), not an adapter's config")


def _typed(path: Path, raw: dict[str, object], duplicates: tuple[str, ...]) -> AdapterConfig:
    malformed: list[tuple[str, str, str]] = []
    no_tokens: TokenIndices = ()
    is_lora = raw.get("peft_type") in (None, "LORA")

    def read(name: str, reader: Callable[[object], T], default: T) -> T:
        is_read = is_lora or name in _COMMON or name == "token_indices"
        if not is_read or (raw.get(name) is None and (name not in raw or name not in _NEVER_NULL)):
            return default
        try:
            return reader(raw[name])
        except _WrongType as wrong:
            malformed.append((name, json.dumps(raw[name])[:80], str(wrong)))
            return default

    return AdapterConfig(
        path=path,
        raw=MappingProxyType(raw),
        peft_type=read("peft_type", _string, None),
        base_model_name_or_path=read("base_model_name_or_path", _string, None),
        r=read("r", _positive, 8),
        lora_alpha=read("lora_alpha", _number, 8.0),
        use_rslora=read("use_rslora", _boolean, False),
        use_dora=read("use_dora", _boolean, False),
        lora_bias=read("lora_bias", _boolean, False),
        ensure_weight_tying=read("ensure_weight_tying", _boolean, False),
        bias=read("bias", _name, "none"),
        rank_pattern=read("rank_pattern", _pattern(_positive), {}),
        alpha_pattern=read("alpha_pattern", _pattern(_number), {}),
        target_modules=read("target_modules", _names_or_regex, None),
        exclude_modules=read("exclude_modules", _names_or_regex, None),
        layers_to_transform=read("layers_to_transform", _one_or_more(_index), None),
        layers_pattern=read("layers_pattern", _one_or_more(_name), ()),
        target_parameters=read("target_parameters", _names, ()),
        modules_to_save=read("modules_to_save", _names, ()),
        trainable_token_indices=read("trainable_token_indices", _token_indices, no_tokens)
        or _indices_of_targets(raw.get("target_modules"), read("token_indices", _indices, ())),
        layer_replication=read("layer_replication", _layer_ranges, ()),
        alora_invocation_tokens=read("alora_invocation_tokens", _indices, ()),
        malformed=tuple(malformed),
        duplicates=duplicates,
    )


T = TypeVar("T")


class _WrongType(Exception):
    """A value is of the wrong type; the message says what is wanted."""


def _string(value: object) -> str | None:
    if not isinstance(value, str):
        raise _WrongType("a string")
    return value


def _positive(value: object) -> int:
    if type(value) is not int or value < 1:
        raise _WrongType("a whole number from 1")
    return value


def _number(value: object) -> float:
    # A whole number can be too large for a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST <= value <= _LARGEST:
        raise _WrongType("a finite number")
    return float(value)


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _WrongType("true or false")
    return value


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _WrongType("a list of module names")
    return tuple(value)


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise _WrongType("a string")
    return value


def _index(value: object) -> int:
    if type(value) is not int or value < 0:
        raise _WrongType("a whole number from 0")
    return value


def _indices(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise _WrongType("a list of whole numbers from 0")
    return tuple(map(_index, value))


def _one_or_more(reader: Callable[[object], T]) -> Callable[[object], tuple[T, ...]]:
    def read(value: object) -> tuple[T, ...]:
        return tuple(map(reader, value)) if isinstance(value, list) else (reader(value),)

    return read


def _token_indices(value: object) -> TokenIndices:
    return {name: _indices(item) for name, item in value.items()} if isinstance(value, dict) else _indices(value)


def _indices_of_targets(targets: object, indices: tuple[int, ...]) -> TokenIndices:
    """TRAINABLE_TOKENS trains the same rows of each module it targets: of the embedding, where it says nothing else."""
    if indices and isinstance(targets, list) and any(str(name).endswith("lm_head") for name in targets):
        return dict.fromkeys(map(str, targets), indices)
    return indices


def _layer_ranges(value: object) -> tuple[tuple[int, int], ...]:
    pairs = [_indices(item) for item in value] if isinstance(value, list) else [()]
    if not all(len(pair) == 2 and pair[0] < pair[1] for pair in pairs):
        raise _WrongType("a list of ranges [first, end]")
    if sum(end - first for first, end in pairs) > LAYERS:
        raise _WrongType(f"ranges of at most {LAYERS} layers in all")
    return tuple((pair[0], pair[1]) for pair in pairs)


def _names_or_regex(value: object) -> str | tuple[str, ...] | None:
    return value if isinstance(value, str) else _names(value)


def _pattern(number: Callable[[object], T]) -> Callable[[object], Mapping[str, T]]:
    def read(value: object) -> Mapping[str, T]:
        if not isinstance(value, dict):
            raise _WrongType("an object of module patterns and numbers")
        return {key: number(item) for key, item in value.items()}

    return read
