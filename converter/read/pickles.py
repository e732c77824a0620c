"""What a pickle would import, told from its opcodes: it is never loaded.

Whoever loads it lets it call what it imports. https://docs.python.org/3/library/pickletools.html names the opcodes.
"""

import pickletools
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from converter.read.files import Unreadable, open_regular
from converter.read.limits import PICKLE_NBYTES, PICKLE_OPCODES

_PICKLE_STARTS: Final = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
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
    with open_regular(path) as file:
        start = file.read(len(_ZIP_START))
        file.seek(0)
        if start == _ZIP_START:
            return _of_zip(file)
        return frozenset(_of_pickles(file.read(PICKLE_NBYTES))) if start[:2] in _PICKLE_STARTS else None


def _of_zip(file: BinaryIO) -> frozenset[Import] | None:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".pkl")]
            pickles = [_entry(archive, entry) for entry in entries]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise Unreadable(f"is a zip archive that can't be read: {error}") from error
    return frozenset(found for data in pickles for found in _of_pickles(data)) if entries else None


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as file:
        data = file.read(PICKLE_NBYTES + 1)
    if len(data) > PICKLE_NBYTES:
        raise Unreadable(f"holds a pickle of more than {PICKLE_NBYTES} bytes")
    return data


def _of_pickles(data: bytes) -> Iterator[Import]:
    """Of the pickles that lie behind each other: the older form of torch.save writes five, then raw numbers."""
    stream, n_opcodes = BytesIO(data), 0
    while data[stream.tell() :][:2] in _PICKLE_STARTS:
        texts: list[str] = []  # what STACK_GLOBAL may take, in the order of the opcodes
        memo: dict[int, str] = {}
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                n_opcodes += 1
                if n_opcodes > PICKLE_OPCODES:
                    raise Unreadable(f"holds a pickle of more than {PICKLE_OPCODES} operations")
                yield from _imported(opcode.name, argument, texts, memo)
        except (ValueError, EOFError, OverflowError) as error:
            # Python would run what stands before the break.
            raise Unreadable(f"holds a broken pickle: {error}") from error


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
