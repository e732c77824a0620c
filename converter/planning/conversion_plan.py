"""What a conversion will write: every output tensor's name, type, shape and source, and the ledger of the adapter.

A plan is plain data. ``--dry-run`` prints it (plan_data.py), tests compare it, and the same plan gives the same bytes.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, Self

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import Deployment, Report
from converter.dtypes import GgmlType
from converter.inputs import Stamp
from converter.read.gguf_header import DEFAULT_ALIGNMENT, GgufArray, KeyValue
from converter.read.imatrix import Importance
from converter.read.stored import StoredTensor
from converter.sources import Source

if TYPE_CHECKING:
    from converter.derive.match import MatchedTensor

# --- The plan ---------------------------------------------------------------------------------------------------------


class Quantised(NamedTuple):
    """A tensor is rounded to F32 first, as llama-quantize finds it in a file of F32, and what an imatrix says of it."""

    importance: Importance | None = None

    def of_matrix(self, i: int, n_matrices: int) -> "Quantised":
        """That of one of a tensor's matrices."""
        return Quantised(self.importance and self.importance.of_matrix(i, n_matrices))


class PlannedTensor(NamedTuple):
    """One output tensor; ``shape`` is row-major. ``quantised`` as llama-quantize does it, else rounded once."""

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    source: Source
    quantised: Quantised | None = None

    @property
    def nbytes(self) -> int:
        """Size in the file, padding aside."""
        return self.type.nbytes(self.shape)


class CopiedKeyValue(NamedTuple):
    """A metadata entry of the base, byte for byte."""

    path: Path
    entry: KeyValue

    @property
    def key(self) -> str:
        """The entry's key."""
        return self.entry.key


class EditedArray(NamedTuple):
    """An array of the base's metadata with ``n`` elements, those of ``changes`` (index, value) other than the base's.

    Where it is longer than the base's, ``changes`` has every element behind that.
    """

    path: Path
    key: str
    array: GgufArray
    n: int
    changes: tuple[tuple[int, str | int | float], ...]


class NewKeyValue(NamedTuple):
    """A metadata entry of ours: a string, a bool, a uint32, a float32, or an array of bools or uint32."""

    key: str
    value: str | int | float | tuple[int, ...]


class NewArray(NamedTuple):
    """A vocabulary's array, whose elements are of a type of GGUF's (STRING, INT32, FLOAT32)."""

    key: str
    element_type: int
    values: tuple[str | int | float, ...]


class StoredNumbers(NamedTuple):
    """An array of float32: the parameters of one number each that lie in ``tensors``, under their ``keys``."""

    key: str
    keys: tuple[str, ...]
    tensors: tuple[StoredTensor, ...]


class NewScalar(NamedTuple):
    """A number of a type of GGUF's that llama.cpp insists on (UINT16, INT32)."""

    key: str
    value_type: int
    value: int


PlannedKeyValue = CopiedKeyValue | EditedArray | NewKeyValue | NewArray | NewScalar | StoredNumbers


Role = Literal["lora", "model", "untied-base"]


class PlannedFile(NamedTuple):
    """One GGUF to write. ``name`` is fixed where the output is a directory, else empty.

    An ``untied-base`` is the copy of a tied base that any adapter's LoRA can be served on.
    """

    role: Role
    tensors: tuple[PlannedTensor, ...]
    key_values: tuple[PlannedKeyValue, ...]
    alignment: int = DEFAULT_ALIGNMENT
    name: str = ""

    @property
    def nbytes(self) -> int:
        """Size of the tensor data, padding included."""
        return sum(-(-tensor.nbytes // self.alignment) * self.alignment for tensor in self.tensors)


Fate = Literal["applied", "folded", "redundant", "left out"]


class LedgerLine(NamedTuple):
    """What became of one tensor key (``kind`` tensor) or config field (``kind`` config) of the adapter."""

    kind: Literal["tensor", "config"]
    key: str
    fate: Fate
    how: str


class Closable(Protocol):
    """What a plan holds until it is closed."""

    def close(self) -> None:
        """Let go of it; once is enough."""


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """Everything a conversion will write, what it is made from, and the ledger's line for every part of the adapter.

    ``matches`` are the tensors that comparing a GGUF with its checkpoint found. ``inputs`` are the files read, as they
    were; ``report`` is the judgement that let it pass. A plan whose numbers PEFT
    computed holds a directory of them (``scratch``): use it as a context manager, or close it when all is written.
    """

    deployment: Deployment
    architecture: str
    files: tuple[PlannedFile, ...]
    ledger: tuple[LedgerLine, ...]
    notes: tuple[str, ...] = ()
    matches: "tuple[MatchedTensor, ...]" = ()
    adapter: Adapter = field(kw_only=True, compare=False, repr=False)
    base: BaseModel = field(kw_only=True, compare=False, repr=False)
    inputs: tuple[Stamp, ...] = field(default=(), kw_only=True, compare=False, repr=False)
    report: Report | None = field(default=None, kw_only=True, compare=False, repr=False)
    scratch: Closable | None = field(default=None, kw_only=True, compare=False, repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes of tensor data over all files."""
        return sum(file.nbytes for file in self.files)

    def close(self) -> None:
        """Let go of what PEFT computed; the plan can't be written any more then."""
        if self.scratch:
            self.scratch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
