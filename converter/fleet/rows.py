"""What is to be done: an adapter, its base, what it is to become, and where that goes."""

import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from converter.diagnostics import Deployment
from converter.errors import NOTHING_LOOKED_AT, ConverterError
from converter.read.checkpoint import is_adapter
from converter.read.files import could_not_read, is_same
from converter.read.hub_address import HubAddress

_SPLIT: Final = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$)")


class Row(NamedTuple):
    """One adapter of a fleet. Paths are absolute; ``base`` is None where the adapter's own config names it.

    ``where`` is how messages call the row: the manifest's path and line, or the adapter's directory. ``split_max_size``
    is in bytes. ``untied_base`` is where an untie-lora has its base, which other rows may have there too; ``output`` is
    then a file. ``verify`` asks for the proof; ``push`` is the directory, here or on a hub, that it goes to.
    """

    where: str
    adapter: Path
    base: Path | None
    deployment: Deployment
    output: Path
    initial_adapter: Path | None = None
    rename_keys: bool = False
    text_only: bool = False
    checkpoint: Path | None = None
    split_max_size: int | None = None
    untied_base: Path | None = None
    verify: bool = False
    push: Path | HubAddress | None = None

    @property
    def reads(self) -> tuple[tuple[str, Path], ...]:
        """What a conversion reads, by the columns' names, as far as the manifest says it."""
        named = (
            ("adapter", self.adapter), ("base", self.base), ("initial_adapter", self.initial_adapter),
            ("checkpoint", self.checkpoint), ("imatrix", self.deployment.quantize and self.deployment.quantize.imatrix),
        )  # fmt: skip
        return tuple((name, path) for name, path in named if path)


class Steps(NamedTuple):
    """How adapters are proven and pushed.

    ``prompts`` are the proof's own texts. An output is pushed to the path that it has below ``outputs``.
    """

    prompts: Path | None = None
    outputs: Path = Path()


def require_adapter(row: Row) -> None:
    """Raise ConverterError, status 3, where no adapter is."""
    with could_not_read(row.adapter):
        if not is_adapter(row.adapter):
            raise ConverterError(f"{row.adapter}: no adapter there (no adapter_config.json)", status=NOTHING_LOOKED_AT)


def refuse_clashes(rows: Sequence[Row]) -> None:
    """Raise ConverterError where two rows would write one file, or one what another reads."""
    identity = Identities()
    writers: dict[str, Row] = {}
    for row in rows:
        first = writers.setdefault(identity(row.output), row)
        if first is not row:
            raise ConverterError(
                f"{row.where}: output {row.output} is that of {first.where} too; give each adapter one of its own"
            )
    shared = _shared(rows, writers, identity)
    for row in rows:
        for what, path in row.reads:
            if writer := writers.get(identity(path)) or shared.get(identity(path)):
                raise ConverterError(f"{row.where}: {what} {path} is the output of {writer.where}; give it another one")
        if writer := writers.get(identity(row.output.parent)):
            raise ConverterError(f"{row.where}: output {row.output} lies in that of {writer.where}; give another one")


def _shared(rows: Sequence[Row], writers: Mapping[str, Row], identity: "Identities") -> dict[str, Row]:
    """Who writes each untied base first. Raises ConverterError where it isn't the same for all that have it."""
    shared: dict[str, Row] = {}
    for row in rows:
        if row.untied_base is None:
            continue
        key = identity(row.untied_base)
        if writer := writers.get(key) or writers.get(identity(row.untied_base.parent)):
            raise ConverterError(
                f"{row.where}: untied_base {row.untied_base} is or lies in the output of {writer.where}; "
                "give it another one"
            )
        first = shared.setdefault(key, row)
        if (row.base, row.deployment.host) != (first.base, first.deployment.host):
            raise ConverterError(
                f"{row.where}: untied_base {row.untied_base} is that of {first.where} too, which has another base or "
                "host; give each base one of its own"
            )
    return shared


class Identities:
    """The same text for every spelling of a path, through links too; a directory is looked at once.

    One file of several (x-00001-of-00003.gguf) counts as the whole (x.gguf).
    """

    def __init__(self) -> None:
        self._directory = cache(os.path.realpath)
        self._has_one_case = cache(_has_one_case)

    def __call__(self, path: Path) -> str:
        directory = self._directory(path.parent)
        whole = os.path.join(directory, _SPLIT.sub("", path.name))  # noqa: PTH118  100,000 of them
        return whole.casefold() if self._has_one_case(Path(directory)) else whole


def _has_one_case(directory: Path) -> bool:
    """Whether a.gguf and A.gguf would be one file: told by what is in a directory, or in the next above that has any.

    That is how Windows and macOS come, but a volume or a directory may be otherwise, on any system.
    """
    try:
        with os.scandir(directory) as entries:
            names = (entry.name for entry in entries if entry.name.swapcase() != entry.name)
            name = next(names, None)
    except OSError:
        name = None
    if name:
        return is_same(directory / name, directory / name.swapcase())
    return directory != directory.parent and _has_one_case(directory.parent)
