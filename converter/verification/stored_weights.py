"""Weights that stay in their file: a tensor of torch that is read when something is computed with it, and then let go.

So transformers and PEFT work on a model whatever its size, with code of theirs and no change to it. torch's extension
point for that: https://docs.pytorch.org/docs/stable/notes/extending.html#extending-torch-with-a-tensor-wrapper-type
"""

import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from converter.errors import ConverterError

_aten: Final = torch.ops.aten

# The same values under another tensor, which has the same storage.
_ALIASES: Final = frozenset({_aten.detach.default, _aten.alias.default})
# What transformers does to the tensors of a checkpoint to make parameters of them: done when they are needed.
_DEFERRED: Final = frozenset({_aten._to_copy.default, _aten.cat.default, _aten.stack.default})  # noqa: SLF001  its name


@dataclass(slots=True, eq=False)
class Storage:
    """Where values of a ``shape`` lie. ``kept`` are those that were read, while anybody keeps them."""

    shape: torch.Size
    dtype: torch.dtype
    read: Callable[[], torch.Tensor]  # new memory with each call
    n_keepers: int = 0
    kept: torch.Tensor | None = None

    def values(self) -> torch.Tensor:
        """The values, not to be written to. Raises ConverterError where the file has others than was said."""
        if self.kept is not None:
            return self.kept
        values = self.copied()
        if self.n_keepers:
            self.kept = values
        return values

    def copied(self) -> torch.Tensor:
        """The values in memory of their own."""
        values = self.read()
        if (values.shape, values.dtype) != (self.shape, self.dtype):
            found, wanted = tuple(values.shape), tuple(self.shape)
            raise ConverterError(f"the base has a weight of shape {found}, its architecture wants {wanted}")
        return values

    def write(self, values: torch.Tensor) -> None:
        """Other values, which go to a temporary file: where many weights are written to, they are a second base."""
        self.read, self.kept = _TemporaryFile(values), None


class _TemporaryFile:
    """Values in a file without a name, which goes with the last that reads it."""

    def __init__(self, values: torch.Tensor) -> None:
        self._shape, self._dtype = values.shape, values.dtype
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed by the next line
        weakref.finalize(self, self._file.close)
        values.detach().contiguous().view(torch.uint8).numpy().tofile(self._file)

    def __call__(self) -> torch.Tensor:
        """The values in new memory."""
        self._file.seek(0)
        return torch.from_numpy(np.fromfile(self._file, np.uint8)).view(self._dtype).reshape(self._shape)


class StoredWeight(torch.Tensor):
    """A tensor without values of its own: its storage has them, or knows where they lie."""

    stored: Storage

    @staticmethod
    def __new__(cls: type[Self], storage: Storage) -> Self:
        """A tensor over the storage."""
        make: Any = torch.Tensor._make_wrapper_subclass  # noqa: SLF001  the documented way
        made: Self = make(cls, storage.shape, dtype=storage.dtype, device="cpu", requires_grad=False)
        made.stored = storage
        return made

    @property
    def data(self) -> torch.Tensor:
        """The same values; assigning others gives this tensor, and no other, a new storage."""
        return self.detach()

    @data.setter
    def data(self, values: torch.Tensor) -> None:
        if (values.shape, values.dtype) != (self.shape, self.dtype):
            raise ValueError(f"a {self!r} can't hold values of {tuple(values.shape)} in {values.dtype}")
        if isinstance(values, StoredWeight):
            self.stored = values.stored
        else:
            self.stored = Storage(values.shape, values.dtype, _TemporaryFile(values))

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Parameter:
        """An ordinary parameter with the same values."""
        memo[id(self)] = copied = nn.Parameter(self.stored.copied(), requires_grad=False)
        return copied

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]  # torch passes what is for printing values
        """Without the values."""
        return f"StoredWeight({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # as torch's documentation writes it
        cls, function: Any, _types: object, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        named = named or {}
        if function in _ALIASES:
            return cls(arguments[0].stored)
        if function is _aten.clone.default:
            stored = arguments[0].stored
            return cls(Storage(stored.shape, stored.dtype, stored.read))
        if named.get("device") == torch.device("meta"):
            return torch.empty(arguments[0].shape, dtype=named.get("dtype") or arguments[0].dtype, device="meta")
        if function in _DEFERRED:
            return _deferred(function, arguments, named)
        if function._schema.is_mutable and isinstance(arguments[0], cls):  # noqa: SLF001  told nowhere else
            return _written(function, arguments, named)
        return function(*_loaded(arguments), **_loaded(named))


def _loaded(values: Any) -> Any:
    return tree_map_only(StoredWeight, lambda weight: weight.stored.values(), values)


def _deferred(function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> StoredWeight:
    """The result as a weight that is computed when it is read, of what its arguments read now: a copy is a copy."""
    reads = tree_map_only(StoredWeight, lambda weight: _Read(weight.stored.read), arguments)
    empty = tree_map_only(torch.Tensor, lambda tensor: torch.empty_like(tensor, device="meta"), arguments)
    result = function(*empty, **{name: value for name, value in named.items() if name != "device"})

    def read() -> torch.Tensor:
        values: torch.Tensor = function(*tree_map_only(_Read, lambda source: source.read(), reads), **named)
        return values

    return StoredWeight(Storage(result.shape, result.dtype, read))


@dataclass(frozen=True, slots=True)
class _Read:
    read: Callable[[], torch.Tensor]


def _written(function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    target, *others = arguments
    values = target.stored.copied()
    function(values, *_loaded(others), **_loaded(named))
    target.stored.write(values)
    return target


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with its values in memory, not to be written to."""
    return tensor.stored.values() if isinstance(tensor, StoredWeight) else tensor


def stored_in(parameters: Iterable[torch.Tensor]) -> tuple[Storage, ...]:
    """The storages of those parameters that stay in their files."""
    return tuple(parameter.stored for parameter in parameters if isinstance(parameter, StoredWeight))


def keep(storages: Iterable[Storage]) -> None:
    """Keep what is read of these, until they are let go as often as they were kept."""
    for storage in storages:
        storage.n_keepers += 1


def let_go(storages: Iterable[Storage]) -> None:
    """Forget what is read of these, unless somebody else keeps it."""
    for storage in storages:
        storage.n_keepers -= 1
        storage.kept = storage.kept if storage.n_keepers else None


@contextmanager
def keeping(parameters: Iterable[torch.Tensor]) -> Iterator[None]:
    """What is read of these is kept until the end."""
    storages = stored_in(parameters)
    keep(storages)
    try:
        yield
    finally:
        let_go(storages)


def keep_while_running(module: nn.Module) -> None:
    """Read the module's weights once for each time it runs."""

    def begin(*_: object) -> None:
        keep(stored_in(module.parameters()))

    def end(*_: object) -> None:
        let_go(stored_in(module.parameters()))

    module.register_forward_pre_hook(begin)
    module.register_forward_hook(end, always_call=True)
