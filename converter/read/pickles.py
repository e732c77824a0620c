"""What a pickle would import, told from its opcodes: it is never loaded.

Whoever loads it lets it call what it imports. https://docs.python.org/3/library/pickletools.html names the opcodes.
"""

import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from converter.read.files import Unreadable, inside, open_regular
from converter.read.limits import PICKLE_NBYTES, PICKLE_OPCODES

_PICKLE_STARTS: Final = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
_IMPORTS: Final = frozenset({"GLOBAL", "INST"})
_IMPORTABLE: Final = re.compile(r"[A-Za-z_][\w.]* [A-Za-z_][\w.]*")  # a module and a name in it
_ZIP_START: Final = b"PK\x03\x04"
_TEXTS: Final = frozenset(
    {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"}
)
# A registry of numbers; and what takes from the stack, so that another text may be on top than the last: Python's
# pickler writes neither for what training leaves.
_NOT_FOLLOWED: Final = frozenset({"EXT1", "EXT2", "EXT4", "POP", "POP_MARK", "DUP"})


class Import(NamedTuple):
    """A name that a pickle imports; ``UNTOLD`` where its opcodes can't be followed."""

    module: str
    name: str


UNTOLD: Final = Import("something", "untold")


def imports_of(path: Path) -> frozenset[Import] | None:
    """What a file that is a pickle, or holds one as torch.save writes it, would import; None where it is none.

    Raises Unreadable where it is one that can't be looked through, OSError where the system refuses.
    """
    with open_regular(inside(path)) as file:
        start = file.read(len(_ZIP_START))
        file.seek(0)
        if start == _ZIP_START:
            return _of_zip(file)
        data = file.read(PICKLE_NBYTES)
    imports = frozenset(_of_pickles([data]))
    return imports if imports or start[:2] in _PICKLE_STARTS else None


class _InPieces:
    """A file of which no more is read at once than of a pickle: zipfile takes a list of entries of any length."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, nbytes: int = -1) -> bytes:
        most = PICKLE_NBYTES + 1
        if nbytes > most:
            raise Unreadable(f"has a list of more than {PICKLE_NBYTES} bytes")
        data = self._file.read(most if nbytes < 0 else nbytes)
        if nbytes < 0 and len(data) == most:
            raise Unreadable(f"has an end of more than {PICKLE_NBYTES} bytes")
        return data


def _of_zip(file: BinaryIO) -> frozenset[Import] | None:
    pieces: Any = _InPieces(file)
    try:
        with zipfile.ZipFile(pieces) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".pkl")]
            pickles = [*_entries(archive, entries)]
    # A way of packing that zipfile doesn't know is a NotImplementedError of its own, a password a RuntimeError.
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise Unreadable(f"is a zip archive that can't be read: {error}") from error
    return frozenset(_of_pickles(pickles)) if entries else None


def _entries(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> Iterator[bytes]:
    """The pickles of an archive, as many bytes in all as one may have."""
    left = PICKLE_NBYTES
    for entry in entries:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of entries that lie in each other: what they hold is bounded here
            with archive.open(entry) as file:
                data = file.read(left + 1)
        left -= len(data)
        if left < 0:
            raise Unreadable(f"holds pickles of more than {PICKLE_NBYTES} bytes")
        yield data


def _of_pickles(pieces: Iterable[bytes]) -> Iterator[Import]:
    """Of all pickles in pieces of files, together no longer than one may be."""
    steps = (step for data in pieces for step in _steps(data))
    for n_before, (opcode, argument, texts, memo) in enumerate(steps):
        if n_before >= PICKLE_OPCODES:
            raise Unreadable(f"holds pickles of more than {PICKLE_OPCODES} operations")
        yield from _imported(opcode, argument, texts, memo)


_Step = tuple[str, object, list[str], dict[int, str]]


def _steps(data: bytes) -> Iterator[_Step]:
    """The operations of the pickles that lie behind each other: torch.save's older form writes five, then raw numbers.

    With each what STACK_GLOBAL may take, in the order of the operations, and what is kept by number.
    """
    stream = BytesIO(data)
    n_unmarked = 0
    while stream.tell() < len(data) and n_unmarked <= PICKLE_OPCODES:
        if data.startswith(_PICKLE_STARTS, stream.tell()):
            yield from _marked_steps(stream)
            continue
        steps, has_end = _unmarked_steps(stream)
        n_unmarked += len(steps)
        yield from steps if has_end or any(name in _IMPORTS for name, *_ in steps) else ()
        if not has_end:
            return


def _marked_steps(stream: BytesIO) -> Iterator[_Step]:
    texts: list[str] = []
    memo: dict[int, str] = {}
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            yield opcode.name, argument, texts, memo
    except (ValueError, EOFError, OverflowError) as error:
        # Python would run what stands before the break.
        raise Unreadable(f"holds a broken pickle: {error}") from error


def _unmarked_steps(stream: BytesIO) -> tuple[list[_Step], bool]:
    """The operations of a pickle without a mark in front (protocols 0 and 1), and whether they come to an end.

    Raw numbers and texts, which these may be as well, break off before they have named anything to import.
    """
    texts: list[str] = []
    memo: dict[int, str] = {}
    steps: list[_Step] = []
    with suppress(ValueError, EOFError, OverflowError):
        for opcode, argument, _ in islice(pickletools.genops(stream), PICKLE_OPCODES + 1):
            if opcode.name in _IMPORTS and not _IMPORTABLE.fullmatch(str(argument)):
                break  # Python would find no such module
            steps.append((opcode.name, argument, texts, memo))
    return steps, bool(steps) and steps[-1][0] == "STOP"


def _imported(opcode: str, argument: object, texts: list[str], memo: dict[int, str]) -> Iterator[Import]:
    match opcode:
        case "GLOBAL" | "INST":
            module, _, name = str(argument).partition(" ")
            yield Import(module, name)
        case "STACK_GLOBAL":
            yield Import(*texts[-2:]) if len(texts) > 1 else UNTOLD
        case "MEMOIZE":
            memo[len(memo)] = texts[-1] if texts else ""
        case "PUT" | "BINPUT" | "LONG_BINPUT":
            memo[int(str(argument))] = texts[-1] if texts else ""
        case "GET" | "BINGET" | "LONG_BINGET":
            texts.append(memo.get(int(str(argument)), ""))
        case _ if opcode in _TEXTS:
            texts.append(str(argument))
        case _ if opcode in _NOT_FOLLOWED:
            yield UNTOLD
