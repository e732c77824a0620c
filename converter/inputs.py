"""The files that a conversion reads, and whether they are still what they were when it was planned."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.errors import ConverterError
from converter.read.checkpoint import CONFIG_NAME
from converter.read.tokenizer import TOKENIZER_FILES


class Stamp(NamedTuple):
    """What a file system changes with every write: when, how large, and which file bears the name."""

    path: Path
    modified_ns: int
    nbytes: int
    inode: int


def stamps(adapter: Adapter, base: BaseModel, *others: Path) -> tuple[Stamp, ...]:
    """The state of every file that is read. Raises ConverterError where one can't be looked at."""
    try:
        return tuple(_stamp(path) for path in sorted({*input_files(adapter, base), *others}))
    except OSError as error:
        raise ConverterError(f"{error.filename}: can't be read: {error.strerror or error}") from error


def refuse_changed(before: tuple[Stamp, ...]) -> None:
    """Raise ConverterError where a file isn't what it was: a digest of it would be none of what was applied."""
    for stamp in before:
        try:
            is_same = _stamp(stamp.path) == stamp
        except OSError:
            is_same = False
        if not is_same:
            raise ConverterError(f"{stamp.path}: was changed while it was converted; nothing was written, run it again")


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return Stamp(path, found.st_mtime_ns, found.st_size, found.st_ino)


def input_files(adapter: Adapter, base: BaseModel) -> frozenset[Path]:
    """Every file that is there of those which a conversion reads."""
    adapters = [a for a in (adapter, adapter.initial, adapter.origin and adapter.origin.adapter) if a]
    tensors = {tensor.tensor.path for a in adapters for tensor in a.tensors}
    bases = (base, base.checkpoint) if base.checkpoint else (base,)
    weights = {tensor.path for b in bases for tensor in b.tensors.values()} | {shard.path for shard in base.shards}
    return frozenset(path for path in {*tensors, *weights, *_texts(adapters, base)} if path.exists())


def _texts(adapters: list[Adapter], base: BaseModel) -> Iterator[Path]:
    for directory in (a.path for a in adapters):
        yield from (directory / name for name in (CONFIG_NAME, *TOKENIZER_FILES))
    if base.format == "huggingface":
        yield from (base.path / name for name in ("config.json", *TOKENIZER_FILES))
