"""The ledger: every tensor key of the adapter and every field of its config, in exactly one line.

This is the product's promise as a data structure. A key in no line is a bug of ours, and fails the run.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from converter.derive.adapter import Adapter, Origin
from converter.derive.adapter_tensors import AdapterTensor
from converter.derive.config_fields import FIELDS, holds_nothing, initialization
from converter.derive.module_paths import HEAD, tower_of
from converter.planning.conversion_plan import Fate, LedgerLine, PlannedFile
from converter.read.adapter_config import AdapterConfig
from converter.sources import StoredRows, keys_of, stored_in


class LedgerGapError(RuntimeError):
    """A part of the adapter that no line accounts for."""


def plan_ledger(adapter: Adapter, files: Iterable[PlannedFile]) -> tuple[LedgerLine, ...]:
    """Account for every tensor and config field of a judged adapter. Raises LedgerGapError where one is left over."""
    used = _uses(files)
    if adapter.origin:
        return (*_origin_lines(adapter.origin, used), *_origin_fields(adapter.origin.adapter.config))
    folded = _folded(files)
    lines = [_tensor_line(adapter, key, used.get(key), key in folded) for key in _keys(adapter)]
    fields = _config_lines(adapter.config, adapter.initial, folds=bool(folded)) if adapter.config else ()
    return (*lines, *fields)


def _origin_lines(origin: Origin, used: Mapping[str, str]) -> Iterator[LedgerLine]:
    """The keys of an adapter that PEFT merged: each went into every output that a key it is in the place of became."""
    outputs: dict[str, list[str]] = {key: [] for key in _keys(origin.adapter)}
    for merged, keys in origin.keys.items():
        for key in keys if merged in used else ():
            outputs[key].append(used[merged])
    for key, names in outputs.items():
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            yield LedgerLine("tensor", key, "applied", f"merged by PEFT into {names[0]}{more}")
        else:
            yield _redundant(origin.adapter, key)


def _origin_fields(config: AdapterConfig | None) -> Iterator[LedgerLine]:
    for name, value in config.raw.items() if config else ():
        if holds_nothing(value):
            yield LedgerLine("config", name, "redundant", "holds nothing")
        else:
            yield LedgerLine("config", name, "applied", "read by PEFT for its merge")


def _keys(adapter: Adapter) -> tuple[str, ...]:
    return tuple(entry.name for header in adapter.headers for entry in header.entries)


def _uses(files: Iterable[PlannedFile]) -> dict[str, str]:
    """The output tensors that each key goes into: of gate and up together two, of a host's head one a layer."""
    outputs: dict[str, dict[str, None]] = {}
    for tensor in (tensor for file in files for tensor in file.tensors):
        for key in keys_of(tensor.source):
            outputs.setdefault(key, {})[tensor.name] = None
    return {key: _listed(tuple(names)) for key, names in outputs.items()}


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} more"


def _folded(files: Iterable[PlannedFile]) -> frozenset[str]:
    stored = (rows for file in files for tensor in file.tensors for rows in stored_in(tensor.source))
    return frozenset(rows.key for rows in stored if isinstance(rows, StoredRows) and rows.scale != 1.0)


def _tensor_line(adapter: Adapter, key: str, output: str | None, folded: bool) -> LedgerLine:  # noqa: FBT001  a fact
    if output is not None:
        return LedgerLine("tensor", key, "folded" if folded else "applied", f"{_renaming(adapter, key)}{output}")
    return _redundant(adapter, key)


def _renaming(adapter: Adapter, key: str) -> str:
    name = adapter.renamed.get(key)
    return f"read as {name}: " if name else ""


def _redundant(adapter: Adapter, key: str) -> LedgerLine:
    left_out = next((tensor for tensor in adapter.left_out if tensor.key == key), None)
    if left_out:
        tower = tower_of(left_out.module)
        return LedgerLine("tensor", key, "left out", f"of {tower}, which no GGUF of the text model holds (--text-only)")
    reason = _redundancy(adapter, next(tensor for tensor in adapter.tensors if tensor.key == key))
    if reason is None:
        raise LedgerGapError(f"{key} is in no line of the ledger; please report this")
    return LedgerLine("tensor", key, "redundant", f"{_renaming(adapter, key)}{reason}")


def _redundancy(adapter: Adapter, tensor: AdapterTensor) -> str | None:
    """Why a tensor says nothing that others don't."""
    if tensor.key in adapter.unchanged:
        return "the base's own numbers"
    if tensor.role.startswith("base_layer."):
        return "the base's own tensor, saved beside its LoRA"
    if adapter.is_tied_pair and tensor.module == HEAD:
        return "the tied pair's one delta, added through embed_tokens"
    if adapter.is_saved_pair and tensor.module == HEAD:
        return "the saved pair's one tensor, written through embed_tokens"
    if tensor.copy_of:
        return f"the same as {tensor.copy_of}"
    return "the module before its training, saved beside it" if tensor.role == "original" else None


_HOW: Final[dict[str, tuple[Fate, str]]] = {
    "applied": ("applied", "decides shape and scale of the deltas"),
    "selects": ("applied", "names the modules whose tensors are applied"),
    "training": ("redundant", "matters in training only"),
    "about": ("redundant", "says where the adapter comes from"),
    "default": ("redundant", "not used"),
}
_APPLIED: Final = {
    "modules_to_save": "names what replaces the base's",
    "ensure_weight_tying": "makes head and embedding one",
    "use_dora": "rescales the merged rows to their magnitudes",
    "lora_bias": "adds to the modules' biases",
    "trainable_token_indices": "names the rows that are replaced",
    "layer_replication": "gives the layers their order",
}
_SCALES: Final = ("lora_alpha", "use_rslora", "alpha_pattern")


def _initialization_line(changed: str, initial: Adapter | None) -> LedgerLine:
    """The base was changed when training began: what it lost has to be subtracted, or the delta is another one."""
    if initial is None:
        raise LedgerGapError(f"init_lora_weights is {changed}, and nothing undoes it; please report this")
    return LedgerLine("config", "init_lora_weights", "applied", "what training began with is subtracted")


def _config_lines(config: AdapterConfig, initial: Adapter | None, *, folds: bool) -> Iterator[LedgerLine]:
    if config.mlx is not None:
        yield from _mlx_lines(config.mlx, folds=folds)
        return
    for name, value in config.raw.items():
        if holds_nothing(value):
            yield LedgerLine("config", name, "redundant", "holds nothing")
        elif folds and name in _SCALES:
            yield LedgerLine("config", name, "folded", "multiplied into lora_b")
        elif name == "init_lora_weights" and (changed := initialization(config)):
            yield _initialization_line(changed, initial)
        elif name in _APPLIED:
            yield LedgerLine("config", name, "applied", _APPLIED[name])
        elif name in FIELDS:
            yield LedgerLine("config", name, *_HOW[FIELDS[name].fate])
        else:
            yield LedgerLine("config", name, *_HOW["selects"])


# What mlx_lm reads of its config (read/mlx_config.py).
_MLX: Final = {"fine_tune_type": _HOW["applied"], "num_layers": _HOW["selects"], "lora_parameters": _HOW["applied"]}


def _mlx_lines(raw: Mapping[str, object], *, folds: bool) -> Iterator[LedgerLine]:
    for name in raw:
        if folds and name == "lora_parameters":
            yield LedgerLine("config", name, "folded", "multiplied into lora_b")
        elif name == "model":
            yield LedgerLine("config", name, *_HOW["about"])
        else:
            yield LedgerLine("config", name, *_MLX.get(name, _HOW["training"]))
