"""A GGUF in several files, as llama.cpp names and reads them: NAME-00001-of-00003.gguf, of which it is given the first.

Tensors are shared out as gguf's own writer does it (GGUFWriter of gguf-py, split_max_size): in their order, as many to
each file as fit. The first has all metadata. Names and keys: llama_split_path, llama_model_loader in llama.cpp's src.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from converter.errors import ConverterError
from converter.planning.conversion_plan import NewKeyValue, NewScalar, PlannedFile, PlannedKeyValue, PlannedTensor
from converter.read.gguf_header import DEFAULT_ALIGNMENT, INT32, UINT16

_SIZE: Final = re.compile(r"([1-9][0-9]{0,11})([KMG]?)")
MOST: Final = 200  # files that are open at once until all are whole; some systems allow 256


def split_size(text: str) -> int | None:
    """N(M|G) bytes, in decimal units, as convert_hf_to_gguf.py reads it, which knows K and plain numbers too."""
    found = _SIZE.fullmatch(text)
    return int(found[1]) * {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}[found[2]] if found else None


def shards(file: PlannedFile, max_nbytes: int) -> tuple[PlannedFile, ...]:
    """The file in parts of at most ``max_nbytes`` of tensors, or of one tensor; itself where it fits in one.

    Raises ConverterError where that makes too many.
    """
    parts = list(_shared_out(file.tensors, max_nbytes))
    if len(parts) == 1:
        return (file,)
    if len(parts) > MOST:
        raise ConverterError(
            f"--split-max-size makes {len(parts)} files, at most {MOST} are written; give a larger size"
        )
    return tuple(
        file._replace(tensors=tensors, key_values=_key_values(file, no, len(parts))) for no, tensors in enumerate(parts)
    )


def shard_paths(path: Path, n: int) -> list[Path]:
    """The parts' names beside ``path``; itself where there is one."""
    return [path] if n == 1 else [path.with_name(f"{path.stem}-{no:05}-of-{n:05}.gguf") for no in range(1, n + 1)]


def _shared_out(tensors: tuple[PlannedTensor, ...], max_nbytes: int) -> Iterator[tuple[PlannedTensor, ...]]:
    part: list[PlannedTensor] = []
    nbytes = 0
    for tensor in tensors:
        if part and nbytes + tensor.nbytes > max_nbytes:
            yield tuple(part)
            part, nbytes = [], 0
        part.append(tensor)
        nbytes += tensor.nbytes
    yield tuple(part)


def _key_values(file: PlannedFile, no: int, n: int) -> tuple[PlannedKeyValue, ...]:
    own = file.key_values if no == 0 else _alignment(file)
    return (
        *own,
        NewScalar("split.no", UINT16, no),
        NewScalar("split.count", UINT16, n),
        NewScalar("split.tensors.count", INT32, len(file.tensors)),
    )


def _alignment(file: PlannedFile) -> tuple[NewKeyValue, ...]:
    """Each file is read by its own: gguf's writer pads the others by an alignment that only the first one tells."""
    return () if file.alignment == DEFAULT_ALIGNMENT else (NewKeyValue("general.alignment", file.alignment),)
