"""What a conversion will write: every output tensor's name, type, shape and source, and the ledger of the adapter.

A plan is plain data. ``--dry-run`` prints it, tests compare it, and the same plan gives the same bytes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Literal

from converter.diagnostics import Deployment
from converter.dtypes import GgmlType
from converter.read.gguf_header import DEFAULT_ALIGNMENT, KeyValue
from converter.read.stored import StoredTensor
from converter.transforms import IDENTITY, InterleaveRope, Order

# --- Sources of rows --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Rows of a tensor in ``order``, times ``scale``. ``key`` names the tensor in the adapter or the base."""

    key: str
    tensor: StoredTensor
    order: Order = IDENTITY
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class StoredColumns:
    """Columns of a matrix as rows: an embedding's lora_embedding_A (r, n_rows) as llama.cpp wants it, (n_rows, r)."""

    key: str
    tensor: StoredTensor


Rows = StoredRows | StoredColumns


@dataclass(frozen=True, slots=True)
class Delta:
    """scaling * left @ right, in float64: left (n_rows, r), right (r, n_columns)."""

    left: Rows
    right: Rows
    scaling: float


@dataclass(frozen=True, slots=True)
class MergedRows:
    """base + delta, added in float64 and rounded once."""

    base: StoredRows
    delta: Delta


@dataclass(frozen=True, slots=True)
class CopiedBytes:
    """A tensor of the base, byte for byte."""

    key: str
    tensor: StoredTensor


Source = CopiedBytes | StoredRows | StoredColumns | MergedRows

# --- The plan ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One output tensor; ``shape`` is row-major."""

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    source: Source

    @property
    def nbytes(self) -> int:
        """Size in the file, padding aside."""
        return self.type.nbytes(self.shape)


@dataclass(frozen=True, slots=True)
class CopiedKeyValue:
    """A metadata entry of the base, byte for byte."""

    path: Path
    entry: KeyValue

    @property
    def key(self) -> str:
        """The entry's key."""
        return self.entry.key


@dataclass(frozen=True, slots=True)
class NewKeyValue:
    """A metadata entry of ours: a string, a uint32 or a float32."""

    key: str
    value: str | int | float


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One GGUF to write. ``name`` is fixed where the output is a directory, else empty."""

    tensors: tuple[PlannedTensor, ...]
    key_values: tuple[CopiedKeyValue | NewKeyValue, ...]
    alignment: int = DEFAULT_ALIGNMENT
    name: str = ""

    @property
    def nbytes(self) -> int:
        """Size of the tensor data, padding included."""
        return sum(-(-tensor.nbytes // self.alignment) * self.alignment for tensor in self.tensors)


Fate = Literal["applied", "folded", "redundant"]


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """What became of one tensor key (``kind`` tensor) or config field (``kind`` config) of the adapter."""

    kind: Literal["tensor", "config"]
    key: str
    fate: Fate
    how: str


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """Everything a conversion will write, and the line of the ledger for every part of the adapter."""

    deployment: Deployment
    architecture: str
    files: tuple[PlannedFile, ...]
    ledger: tuple[LedgerLine, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def nbytes(self) -> int:
        """Bytes of tensor data over all files."""
        return sum(file.nbytes for file in self.files)

    def digest(self) -> str:
        """SHA-256 of the plan as canonical JSON."""
        return sha256(json.dumps(self.as_data(), sort_keys=True).encode()).hexdigest()

    def as_data(self) -> dict[str, object]:
        """The plan for JSON: no paths, so that it is the same on every machine."""
        return {
            "deployment": self.deployment.options,
            "architecture": self.architecture,
            "files": [_file_data(file) for file in self.files],
            "ledger": [{"kind": x.kind, "key": x.key, "fate": x.fate, "how": x.how} for x in self.ledger],
            "notes": list(self.notes),
        }


def _file_data(file: PlannedFile) -> dict[str, object]:
    return {
        "name": file.name,
        "nbytes": file.nbytes,
        "alignment": file.alignment,
        "key_values": [_key_value_data(entry) for entry in file.key_values],
        "tensors": [
            {"name": t.name, "shape": list(t.shape), "type": t.type.name, "source": _source_data(t.source)}
            for t in file.tensors
        ],
    }


def _key_value_data(entry: CopiedKeyValue | NewKeyValue) -> dict[str, object]:
    match entry:
        case CopiedKeyValue():
            return {"copy": entry.key}
        case NewKeyValue(key, value):
            return {"key": key, "value": value}


def _source_data(source: Source) -> dict[str, object]:
    match source:
        case CopiedBytes(key):
            return {"copy": key}
        case MergedRows(base, delta):
            parts = {"left": _source_data(delta.left), "right": _source_data(delta.right), "scaling": delta.scaling}
            return {"merge": _source_data(base), "delta": parts}
        case StoredColumns(key):
            return {"columns": key}
        case StoredRows(key, _, order, scale):
            data: dict[str, object] = {"rows": key}
            if isinstance(order, InterleaveRope):
                data["order"] = f"interleave_rope over {order.n_head} heads"
            return data | ({"scale": scale} if scale != 1.0 else {})


def keys_of(source: Source) -> Iterator[str]:
    """The keys of every tensor a source reads."""
    match source:
        case MergedRows(base, delta):
            yield from (base.key, delta.left.key, delta.right.key)
        case _:
            yield source.key


def n_elements(tensor: PlannedTensor) -> int:
    """How many elements an output tensor has."""
    return prod(tensor.shape)
