"""The pickles beside an adapter, and whether they import anything but what trainers write."""

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from converter.derive.adapter import Adapter
from converter.read.files import Unreadable, could_not_read, is_file

# Endings of files that torch.save and pickle write. Others that begin like a pickle are looked at as well.
ENDINGS: Final = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
# Classes of these are data; of their functions only those that put tensors and arrays together again.
_PACKAGES: Final = frozenset({"accelerate", "deepspeed", "numpy", "peft", "torch", "transformers", "trl", "unsloth"})
_FUNCTIONS: Final = frozenset(
    {
        ("_codecs", "encode"),
        ("collections", "OrderedDict"),
        ("collections", "defaultdict"),
        ("copyreg", "_reconstructor"),
        ("datetime", "datetime"),
        ("datetime", "timedelta"),
        ("pathlib", "PosixPath"),
        ("pathlib", "PurePosixPath"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("torch", "device"),
        ("torch", "float16"),
        ("torch", "float32"),
        ("torch", "bfloat16"),
        *(
            (module, name)
            for module in ("builtins", "__builtin__")
            for name in ("set", "frozenset", "slice", "bytearray")
        ),
        *(("torch._utils", name) for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")),
    }
)


class Pickle(NamedTuple):
    """A pickle beside an adapter; ``fault`` is what it imports that no trainer writes, or why that can't be told."""

    name: str
    fault: str | None


def pickles_beside(adapter: Adapter) -> tuple[Pickle, ...]:
    """The pickles beside an adapter, sorted by name. Raises ConverterError where the system refuses to say.

    Of one on a hub they are those that were fetched.
    """
    directory, unread = adapter.path, adapter.on_hub.unread if adapter.on_hub else ()
    with could_not_read(directory):
        names = sorted(os.listdir(directory))  # noqa: PTH208  faster
        files = tuple(
            name for name in names if name.endswith(ENDINGS) and name not in unread and is_file(directory / name)
        )
        return _of_files(directory, tuple((name, (directory / name).stat().st_mtime_ns) for name in files))


@lru_cache(maxsize=2)  # two rules ask
def _of_files(directory: Path, files: tuple[tuple[str, int], ...]) -> tuple[Pickle, ...]:
    return tuple(_looked_through(directory, [name for name, _ in files])) if files else ()


def _looked_through(directory: Path, names: list[str]) -> Iterator[Pickle]:
    from converter.read.pickles import imports_of

    for name in names:
        try:
            imports = imports_of(directory / name)
        except Unreadable as error:
            yield Pickle(name, f"{error}; what it would run can't be told")
            continue
        if imports is not None:
            foreign = sorted(
                f"{i.module}.{i.name}" if i.module else "what isn't told" for i in imports if not _is_data(*i)
            )
            yield Pickle(name, f"is a pickle that imports {', '.join(foreign[:5])}" if foreign else None)


def _is_data(module: str, name: str) -> bool:
    """Whether an import is a class or function that files of training runs are made of."""
    is_class = name.lstrip("_")[:1].isupper() and "." not in name
    return (module, name) in _FUNCTIONS or (module.partition(".")[0] in _PACKAGES and is_class)
