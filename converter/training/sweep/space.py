"""What a sweep tries: the lists of its TOML file (default.toml is the one that comes with the package).

The names are TrainingSettings', but ``alpha_over_r``: lora_alpha is that times r, so that trials of different ranks
compare at one scaling.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from sys import float_info
from typing import Any, Final, Literal, TypeVar, get_args

from converter.errors import ConverterError
from converter.read.files import read_text
from converter.read.limits import SETTINGS_NBYTES
from converter.training.settings import HEADS, Bias, Head, TrainingSettings

Sampler = Literal["tpe", "grid"]
Pruner = Literal["median", "none"]
_T = TypeVar("_T")

# Where every trial's settings differ from the sweep's own.
VARIED: Final = ("r", "lora_alpha", "use_rslora", "lora_dropout", "bias", "lora_bias", "head", "learning_rate", "seed")


@dataclass(frozen=True, slots=True)
class Values:
    """One trial's choices. The order of the fields is a grid's: seeds change last, heads with every trial."""

    seed: int
    learning_rate: float
    lora_dropout: float
    alpha_over_r: float
    use_rslora: bool
    bias: Bias
    lora_bias: bool
    r: int
    head: Head


@dataclass(frozen=True, slots=True)
class Space:
    """The lists to choose from. An empty one stands for what the settings of all trials say."""

    r: tuple[int, ...] = ()
    alpha_over_r: tuple[float, ...] = ()
    use_rslora: tuple[bool, ...] = ()
    lora_dropout: tuple[float, ...] = ()
    bias: tuple[Bias, ...] = ()
    lora_bias: tuple[bool, ...] = ()
    head: tuple[Head, ...] = ()
    learning_rate: tuple[float, ...] = ()
    seed: tuple[int, ...] = ()
    rslora_from_r: int = 1


@dataclass(frozen=True, slots=True)
class Sweep:
    """How the space is searched. ``tolerance`` is a share of the eval loss: smaller differences buy nothing."""

    space: Space
    n_trials: int = 24
    sampler: Sampler = "tpe"
    pruner: Pruner = "median"
    seed: int = 0
    tolerance: float = 0.01


def read_sweep(path: str) -> Sweep:
    """Read a sweep's TOML file; "default" is the one that comes with the package.

    Raises ConverterError for an unknown key, a wrong type or a value that can't be.
    """
    data = _toml(Path(__file__).with_name("default.toml") if path == "default" else Path(path))
    for name in data:
        if name not in ("sweep", "space"):
            raise ConverterError(f"{path}: has a table or key {name!r}; wanted [sweep] and [space]")
    search = _checked(f"{path}: [sweep]", data.get("sweep", {}), _SEARCH)
    if search.get("sampler") == "grid" and "n_trials" in search:
        raise ConverterError(f"{path}: [sweep] n_trials: a grid runs every combination; remove it")
    return Sweep(Space(**_lists(f"{path}: [space]", data.get("space", {}))), **search)


def offered(space: Space, settings: TrainingSettings, *, base_has_biases: bool) -> Space:
    """The space with every list filled, without what this base has no use for.

    Training biases takes a base that has some; ``lora_bias`` gives some to a base without. Raises ConverterError where
    nothing is left.
    """
    default = asdict(_values_of(settings))
    lists: dict[str, Any] = {name: getattr(space, name) or (value,) for name, value in default.items()}
    lists["bias"] = tuple(bias for bias in lists["bias"] if base_has_biases or bias == "none")
    lists["lora_bias"] = tuple(flag for flag in lists["lora_bias"] if not (flag and base_has_biases))
    if not lists["bias"]:
        raise ConverterError('[space] bias: the base has no biases to train; add "none" to the list')
    if not lists["lora_bias"]:
        raise ConverterError("[space] lora_bias: the base has biases of its own; add false to the list, and vary bias")
    return replace(space, **lists)


def combinations(space: Space) -> tuple[Values, ...]:
    """Every setting that a filled space can make, once, in a grid's order."""
    lists = (getattr(space, field.name) for field in fields(Values))
    every = (Values(*chosen) for chosen in product(*lists))
    return tuple(dict.fromkeys(canonical(space, values) for values in every))


def anchors(space: Space) -> tuple[Values, ...]:
    """What is always tried first, so that the main comparison is direct.

    The safe setting (r 16, alpha/r 2, dropout 0.05, no biases, the middle learning rate, where they are listed) with
    each head, then the same at each larger rank.
    """
    safe = Values(
        r=_preferred(space.r, 16),
        alpha_over_r=_preferred(space.alpha_over_r, 2),
        use_rslora=_preferred(space.use_rslora, False),
        lora_dropout=_preferred(space.lora_dropout, 0.05),
        bias=_preferred(space.bias, "none"),
        lora_bias=_preferred(space.lora_bias, False),
        head=_preferred(space.head, "none"),
        learning_rate=sorted(space.learning_rate)[(len(space.learning_rate) - 1) // 2],
        seed=space.seed[0],
    )
    heads = sorted(space.head, key=lambda head: head != safe.head)
    ranks = sorted(r for r in space.r if r >= safe.r)
    return tuple(canonical(space, replace(safe, r=r, head=head)) for r in ranks for head in heads)


def settings_of(values: Values, settings: TrainingSettings, output: Path) -> TrainingSettings:
    """The settings of one trial. Biases can't be expressed in a LoRA GGUF, so that trials with some aim at a model."""
    chosen = asdict(values)
    chosen["lora_alpha"] = chosen.pop("alpha_over_r") * values.r
    biased = values.bias != "none" or values.lora_bias
    target = "model" if settings.target is None and values.head == "none" and biased else settings.target
    return replace(settings, **chosen, target=target, output=output, resume=False)


def _values_of(settings: TrainingSettings) -> Values:
    shared = {field.name: getattr(settings, field.name) for field in fields(Values) if field.name != "alpha_over_r"}
    return Values(**shared, alpha_over_r=settings.lora_alpha / settings.r)


def canonical(space: Space, values: Values) -> Values:
    """The one way to write a setting: without what can't have an effect, or can't be deployed.

    rsLoRA is tried at large ranks only; a bias beside a LoRA on the head is one that llama.cpp's graphs don't add.
    """
    return replace(
        values,
        use_rslora=values.use_rslora and values.r >= space.rslora_from_r,
        lora_bias=values.lora_bias and values.head not in ("lora", "tied"),
    )


def _preferred(listed: tuple[_T, ...], wanted: _T) -> _T:
    return listed[listed.index(wanted)] if wanted in listed else listed[0]  # of the type that is listed


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path, SETTINGS_NBYTES))
    except (ValueError, RecursionError) as error:
        raise ConverterError(f"{path}: is no TOML: {error}") from error


@dataclass(frozen=True, slots=True)
class _Key:
    """What a value must be, and the words for it. ``make`` gives it the type it has in Python."""

    fits: Callable[[Any], bool]
    wanted: str
    make: Callable[[Any], Any] = lambda value: value


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= float_info.max


def _one_of(choices: tuple[str, ...]) -> _Key:
    return _Key(lambda value: value in choices, f"one of {', '.join(choices)}")


_RANK: Final = _Key(lambda value: _is_whole(value) and value > 0, "a whole number above 0")
_SEED: Final = _Key(lambda value: _is_whole(value) and 0 <= value < 2**32, "a whole number from 0 to 4294967295")
_ABOVE_0: Final = _Key(lambda value: _is_number(value) and value > 0, "a number above 0", float)
_SHARE: Final = _Key(lambda value: _is_number(value) and 0 <= value < 1, "a number from 0 to below 1", float)
_FLAG: Final = _Key(lambda value: isinstance(value, bool), "true or false")

_SEARCH: Final = {
    "n_trials": _RANK,
    "sampler": _one_of(get_args(Sampler)),
    "pruner": _one_of(get_args(Pruner)),
    "seed": _SEED,
    "tolerance": _SHARE,
}
_SPACE: Final = {
    "r": _RANK,
    "alpha_over_r": _ABOVE_0,
    "use_rslora": _FLAG,
    "lora_dropout": _SHARE,
    "bias": _one_of(get_args(Bias)),
    "lora_bias": _FLAG,
    "head": _one_of(HEADS),
    "learning_rate": _ABOVE_0,
    "seed": _SEED,
}


def _checked(where: str, table: object, keys: Mapping[str, _Key]) -> dict[str, Any]:
    return {name: _made(f"{where} {name}", value, key) for name, value, key in _known(where, table, keys)}


def _lists(where: str, table: object) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value, key in _known(where, table, _SPACE | {"rslora_from_r": _RANK}):
        single = name == "rslora_from_r"
        made[name] = _made(f"{where} {name}", value, key) if single else _made_list(f"{where} {name}", value, key)
    return made


def _known(where: str, table: object, keys: Mapping[str, _Key]) -> Iterator[tuple[str, Any, _Key]]:
    if not isinstance(table, dict):
        raise ConverterError(f"{where} is {table!r}, wanted a table")
    for name, value in table.items():
        if name not in keys:
            raise ConverterError(f"{where} has an unknown key {name!r}; known are {', '.join(keys)}")
        yield name, value, keys[name]


def _made(where: str, value: Any, key: _Key) -> Any:
    if not key.fits(value):
        raise ConverterError(f"{where} is {value!r}, wanted {key.wanted}")
    return key.make(value)


def _made_list(where: str, value: Any, key: _Key) -> tuple[Any, ...]:
    if not isinstance(value, list) or not value:
        raise ConverterError(f"{where} is {value!r}, wanted a list, each {key.wanted}")
    made = tuple(_made(where, one, key) for one in value)
    if len(set(made)) < len(made):
        raise ConverterError(f"{where} is {value!r}: lists a value twice")
    return made
