"""What a conversion will write: every output tensor's name, type, shape and source, and the ledger of the adapter.

A plan is plain data. ``--dry-run`` prints it, tests compare it, and the same plan gives the same bytes.
"""

import json
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Literal

from converter.diagnostics import Deployment
from converter.dtypes import GgmlType
from converter.planning.sources import Source
from converter.read.gguf_header import DEFAULT_ALIGNMENT, GgufArray, KeyValue

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
class EditedArray:
    """An array of the base's metadata with ``n`` elements, those of ``changes`` (index, value) other than the base's.

    Where it is longer than the base's, ``changes`` has every element behind that.
    """

    path: Path
    key: str
    array: GgufArray
    n: int
    changes: tuple[tuple[int, str | int | float], ...]


@dataclass(frozen=True, slots=True)
class NewKeyValue:
    """A metadata entry of ours: a string, a bool, a uint32, a float32, or an array of bools or uint32."""

    key: str
    value: str | int | float | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NewArray:
    """A vocabulary's array, whose elements are of a type of GGUF's (STRING, INT32, FLOAT32)."""

    key: str
    element_type: int
    values: tuple[str | int | float, ...]


PlannedKeyValue = CopiedKeyValue | EditedArray | NewKeyValue | NewArray


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One GGUF to write. ``name`` is fixed where the output is a directory, else empty."""

    tensors: tuple[PlannedTensor, ...]
    key_values: tuple[PlannedKeyValue, ...]
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
        from converter.planning.plan_data import file_data

        return {
            "deployment": self.deployment.options,
            "architecture": self.architecture,
            "files": [file_data(file) for file in self.files],
            "ledger": [{"kind": x.kind, "key": x.key, "fate": x.fate, "how": x.how} for x in self.ledger],
            "notes": list(self.notes),
        }
