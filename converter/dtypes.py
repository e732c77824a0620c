"""Element types of safetensors and GGUF as data: names, ids and sizes. No numpy, so that the gate starts quickly.

safetensors: https://github.com/huggingface/safetensors (``Dtype`` in safetensors/src/tensor.rs)
GGML: ``enum ggml_type`` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/include/ggml.h and the
block structs in ggml/src/ggml-common.h.
"""

from collections.abc import Sequence
from math import prod
from types import MappingProxyType
from typing import Final, NamedTuple

# Bytes per element. F4, F6_E2M3 and F6_E3M2 share bytes between elements, and no PEFT adapter uses them.
SAFETENSORS_ITEMSIZE: Final = MappingProxyType(
    {
        "BOOL": 1,
        "U8": 1,
        "I8": 1,
        "F8_E5M2": 1,
        "F8_E4M3": 1,
        "F8_E8M0": 1,
        "F8_E4M3FNUZ": 1,
        "F8_E5M2FNUZ": 1,
        "I16": 2,
        "U16": 2,
        "F16": 2,
        "BF16": 2,
        "I32": 4,
        "U32": 4,
        "F32": 4,
        "C64": 8,
        "F64": 8,
        "I64": 8,
        "U64": 8,
    }
)

# The types whose values we read as numbers; FP8 scales by nothing of its own in PEFT's files.
SAFETENSORS_FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16", "F8_E5M2", "F8_E4M3"})


class GgmlType(NamedTuple):
    """One GGML tensor type: ``block_size`` elements of a row are stored in ``type_size`` bytes."""

    name: str
    id: int
    block_size: int
    type_size: int

    @property
    def is_float(self) -> bool:
        """True for the types that hold each value by itself: F64, F32, F16, BF16."""
        return self.block_size == 1 and self.name in {"F64", "F32", "F16", "BF16"}

    def fits(self, n_columns: int) -> bool:
        """Whether a row of ``n_columns`` elements is a whole number of blocks."""
        return n_columns % self.block_size == 0

    def nbytes(self, shape: Sequence[int]) -> int:
        """Size in bytes of a tensor of ``shape`` (elements; whole blocks are the caller's concern)."""
        return prod(shape) // self.block_size * self.type_size


_GGML_TYPES: Final = tuple(
    GgmlType(*row)
    for row in (
        ("F32", 0, 1, 4),
        ("F16", 1, 1, 2),
        ("Q4_0", 2, 32, 18),
        ("Q4_1", 3, 32, 20),
        ("Q5_0", 6, 32, 22),
        ("Q5_1", 7, 32, 24),
        ("Q8_0", 8, 32, 34),
        ("Q8_1", 9, 32, 36),
        ("Q2_K", 10, 256, 84),
        ("Q3_K", 11, 256, 110),
        ("Q4_K", 12, 256, 144),
        ("Q5_K", 13, 256, 176),
        ("Q6_K", 14, 256, 210),
        ("Q8_K", 15, 256, 292),
        ("IQ2_XXS", 16, 256, 66),
        ("IQ2_XS", 17, 256, 74),
        ("IQ3_XXS", 18, 256, 98),
        ("IQ1_S", 19, 256, 50),
        ("IQ4_NL", 20, 32, 18),
        ("IQ3_S", 21, 256, 110),
        ("IQ2_S", 22, 256, 82),
        ("IQ4_XS", 23, 256, 136),
        ("I8", 24, 1, 1),
        ("I16", 25, 1, 2),
        ("I32", 26, 1, 4),
        ("I64", 27, 1, 8),
        ("F64", 28, 1, 8),
        ("IQ1_M", 29, 256, 56),
        ("BF16", 30, 1, 2),
        ("TQ1_0", 34, 256, 54),
        ("TQ2_0", 35, 256, 66),
        ("MXFP4", 39, 32, 17),
        ("NVFP4", 40, 64, 36),
    )
)
GGML_BY_ID: Final = MappingProxyType({t.id: t for t in _GGML_TYPES})
GGML_BY_NAME: Final = MappingProxyType({t.name: t for t in _GGML_TYPES})

F64: Final = GGML_BY_NAME["F64"]
F32: Final = GGML_BY_NAME["F32"]
F16: Final = GGML_BY_NAME["F16"]
BF16: Final = GGML_BY_NAME["BF16"]
Q8_0: Final = GGML_BY_NAME["Q8_0"]
