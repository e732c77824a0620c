"""The draft of a table, from measurements: what a new architecture starts from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from transformers import AutoConfig, PretrainedConfig

from converter.architectures import TABLES, Place
from converter.architectures import _table as table_as_written
from converter.derive.dimensions import _CONFIG_FIELDS, products
from converter.errors import ConverterError
from tools.element_map import Moved, moves
from tools.measured_tables import Measured, pattern
from tools.order_texts import Dims, common, sections, text

Entry = dict[str, Any]
Entries = Mapping[str, Sequence[Entry]]  # by module; several where its rows are dealt out
UNKNOWN: Final = "?"


def modules(twice: Sequence[Measured]) -> Entries:
    """The module entries of a table: each module's tensors, shape, orders, addend and layout."""
    found: dict[str, list[Entry]] = {}
    layers = [_by_pattern(measured) for measured in twice]
    dims = [dims_of(measured) for measured in twice]
    for module, tensor in layers[0]:
        entry = _entry(tensor, [of.get((module, tensor), []) for of in layers], dims)
        if any(pattern(name) == f"{tensor}.weight" for name in twice[0].never_smaller):
            entry["f32"] = True
        found.setdefault(module, []).append(entry)
    return found


def dims_of(measured: Measured) -> Dims:
    """The sizes that a config says, as shapes and orders call them."""
    config = AutoConfig.from_pretrained(measured.model.directory).get_text_config()
    said = stated(config)
    values = {dim: next((said[name] for name in names if said.get(name)), 0) for dim, names in _CONFIG_FIELDS.items()}
    dims = {dim: value for dim, value in values.items() if isinstance(value, int) and value}
    dims.setdefault("n_head_kv", dims["n_head"])
    dims.setdefault("head_dim", dims["hidden"] // dims["n_head"])
    dims.setdefault("ffn", 4 * dims["hidden"])
    try:
        return {**dims, **products(dims)}
    except (ConverterError, KeyError):
        return dims


def stated(config: PretrainedConfig) -> dict[str, Any]:
    """The fields of a config, also by their other names."""
    fields: dict[str, Any] = config.to_dict()
    return fields | {old: fields[new] for old, new in type(config).attribute_map.items() if new in fields}


def _by_pattern(measured: Measured) -> Mapping[tuple[str, str], list[Moved]]:
    """The moves of a weight in all layers, by the patterns of its module and its tensor."""
    found: dict[tuple[str, str], list[Moved]] = {}
    for moved in moves(measured):
        if moved.tensor.endswith(".weight") and not moved.parameter.endswith(".bias"):
            module = pattern(moved.parameter.removesuffix(".weight"))
            found.setdefault((module, pattern(moved.tensor.removesuffix(".weight"))), []).append(moved)
    return found


def _entry(tensor: str, of_each: Sequence[Sequence[Moved]], dims: Sequence[Dims]) -> Entry:
    every = [moved for of_one in of_each for moved in of_one]
    problems = {moved.problem for moved in every if moved.problem}
    if problems or not all(of_each):
        problem = "; ".join(sorted(problems)) or "is in one measurement alone"
        return {"tensor": tensor, "shape": [], "problem": problem}
    entry: Entry = {"tensor": tensor, "shape": _shape(of_each, dims)}
    rows = _order([[(moved.rows, moved.shape[-2:][0]) for moved in of_one] for of_one in of_each], dims)
    columns = ""
    if len(every[0].shape) > 1:
        columns = _order([[(moved.columns, moved.shape[-1]) for moved in of_one] for of_one in of_each], dims)
    said = {"rows": rows, "columns": columns, "transposed": every[0].transposed, "add": every[0].add}
    return entry | {name: value for name, value in said.items() if value}


def _shape(of_each: Sequence[Sequence[Moved]], dims: Sequence[Dims]) -> list[tuple[str, ...]]:
    """What each axis may be called."""
    n = len(of_each[0][0].shape)
    return [_dim([{moved.shape[at] for moved in of_one} for of_one in of_each], dims) for at in range(n)]


# Of sizes that are alike in both measurements the first one is taken.
_PREFERRED: Final = (
    "hidden", "vocab", "q", "kv", "qkv", "head_dim", "ffn", "gate_up", "n_expert", "moe_ffn", "moe_gate_up"
)  # fmt: skip


def _dim(sizes: Sequence[set[int]], dims: Sequence[Dims]) -> tuple[str, ...]:
    if any(len(size) > 1 for size in sizes):
        return (UNKNOWN,)  # layers differ
    alike = [
        dim for dim in dims[0] if all(of.get(dim) == size for of, (size,) in zip(dims, map(tuple, sizes), strict=True))
    ]
    preferred = [dim for dim in _PREFERRED if dim in alike]
    return (*preferred, *(dim for dim in alike if dim not in preferred)) or (UNKNOWN,)


def _order(of_each: Sequence[Sequence[tuple[Any, int]]], dims: Sequence[Dims]) -> str:
    """The text of an order that all layers share; a question mark where there is none."""
    if any(not np.array_equal(rows, of_one[0][0]) for of_one in of_each for rows, _ in of_one):
        return UNKNOWN
    first, second = (sections(*of_one[0], of) for of_one, of in zip(of_each, dims, strict=True))
    both = common(first, second) if first is not None and second is not None else None
    return UNKNOWN if both is None else text(both)


# --- As TOML, laid over the closest table -----------------------------------------------------------------------------


def closest(drafted: Entries) -> tuple[str, Mapping[str, Any]]:
    """The table that leaves the least to say, and what is left to say of modules."""
    left = {table: left_to_say(drafted, table_as_written(table)["modules"]) for table in TABLES}
    table = min(left, key=lambda name: (len(left[name]), name))
    return table, left[table]


def left_to_say(drafted: Entries, below: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of a draft another table's modules don't say, and ``False`` for those that it hasn't."""
    said: dict[str, Any] = {module: False for module in below if module not in drafted and "{e}" not in module}
    for module, entries in drafted.items():
        under = below.get(module)
        unders = under if isinstance(under, list) else [under] * len(entries)
        differing = [_differing(*pair) for pair in zip(entries, unders, strict=False)]
        if len(unders) != len(entries) or (len(entries) > 1 and any(differing)):
            said[module] = [_differing(entry, None) for entry in entries]
        elif any(differing):
            said[module] = differing[0]
    return said


_UNSAID: Final = dict(Place._field_defaults)


def _differing(entry: Entry, under: Entry | None) -> Entry:
    """The fields that differ; all where nothing is below. Shapes differ where their sizes do."""
    below = under or {}
    shape = below.get("shape", [])
    fits = len(shape) == len(entry["shape"]) and all(map(_is_among, shape, entry["shape"]))
    named = {**entry, "shape": shape if fits else [names[0] for names in entry["shape"]]}
    fields = {**dict.fromkeys(below), **named}
    # Which layers have a module is measured, but not why; of vectors no LoRA is served.
    fields = {name: named.get(name, _UNSAID.get(name)) for name in fields if name not in {"only", "never", "optional"}}
    lora = len(named["shape"]) > 1
    return {
        name: value
        for name, value in fields.items()
        if value != below.get(name, lora if name == "lora" else _UNSAID.get(name))
    }


def _is_among(dim: str, names: Sequence[str]) -> bool:
    return dim in names or (dim == "one" and UNKNOWN in names)


def toml(said: Mapping[str, Any]) -> Iterator[str]:
    """The lines of modules."""
    yield "[modules]"
    for module, entry in said.items():
        if not isinstance(entry, list):
            yield f"{_key(module)} = {_value(entry)}"
    for module, entry in said.items():
        for row in entry if isinstance(entry, list) else []:
            yield ""
            yield f"[[modules.{_key(module)}]]"
            yield from table_lines(row)


def table_lines(fields: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a table of TOML."""
    return (f"{_key(name)} = {_value(value)}" for name, value in fields.items())


def _key(name: str) -> str:
    return name if name.isidentifier() else f'"{name}"'


def _value(value: Any) -> str:
    match value:
        case dict():
            return "{ " + ", ".join(f"{name} = {_value(of)}" for name, of in value.items()) + " }"
        case list() | tuple():
            return "[" + ", ".join(map(_value, value)) + "]"
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case _:
            return str(value)
