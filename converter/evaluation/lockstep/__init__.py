"""Blocks of Q4_K, Q5_K, Q6_K, Q5_0 and Q8_0 as libggml makes them without an imatrix, many at once: by numba.

libggml takes number after number in float32, on one lane of a register. Here a lane is a sub-block: 64 of them go
through the same operations in the same order, so every float is the one that libggml has, and so is every byte. Nothing
is fused or reassociated, branches are selections. What would leave that path (a value that isn't finite, a range near
float32's ends, a scale that rounds to zero) makes its block **odd**, and libggml makes that one.

Three things hold it to libggml: the tests, whatever the numbers; every call, which has libggml make a few of its blocks
again; and the processor, for a compiler may fuse a multiplication and an addition where libggml was built for another.

The operations: quantize_row_*_ref in ggml/src/ggml-quants.c of https://github.com/ggml-org/llama.cpp, and the block
structs in its ggml-common.h.

Importing this package imports numba (the extra ``fast``). Each type compiles for 1 to 3 s, once for a machine.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from converter.dtypes import GgmlType
from converter.errors import ConverterError
from converter.evaluation.lockstep.lanes import LANES, Bytes, Floats
from converter.evaluation.lockstep.with_minimum import q4_k, q5_k
from converter.evaluation.lockstep.with_scale import q5_0, q6_k, q8_0

# Numbers (n * block size,), blocks out (n, bytes), whether each is odd out (n,).
_Kernel = Callable[[Floats, Bytes, Bytes], None]
# Each type's kernel, and how many blocks it takes at least.
_KERNELS: Final[Mapping[str, tuple[_Kernel, int]]] = {
    "Q4_K": (q4_k, LANES // 8),
    "Q5_K": (q5_k, LANES // 8),
    "Q6_K": (q6_k, LANES // 16),
    "Q5_0": (q5_0, LANES),
    "Q8_0": (q8_0, LANES),
}
_N_PROVED: Final = 512  # numbers of a call that libggml quantises too

LibGgml = Callable[[Floats], npt.NDArray[np.uint8]]


def quantised(values: Floats, ggml_type: GgmlType, libggml: LibGgml) -> Bytes:
    """The bytes of rows of numbers, (rows, row's bytes), as ``libggml`` makes them of numbers in that form.

    Raises ConverterError where a block that both have made differs: then none of them can be trusted.
    """
    kernel, least = _KERNELS[ggml_type.name]
    if values.size < least * ggml_type.block_size:
        return libggml(values)
    numbers = np.ascontiguousarray(values).reshape(-1)
    n = values.size // ggml_type.block_size
    blocks, odd = np.empty((n, ggml_type.type_size), np.uint8), np.empty(n, np.uint8)
    kernel(numbers, blocks, odd)
    again = odd.copy()
    again[:: n * ggml_type.block_size // _N_PROVED] = 1
    places = np.flatnonzero(again)
    theirs = libggml(numbers.reshape(n, -1)[places])
    if not ((theirs == blocks[places]).all(axis=1) | (odd[places] != 0)).all():
        raise ConverterError(
            f"{ggml_type.name} is not what libggml makes of it on this processor; "
            "set NUMBA_DISABLE_JIT=1, which does without the extra fast, and report this"
        )
    blocks[places] = theirs
    return blocks.reshape(len(values), -1)
