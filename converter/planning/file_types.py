"""What llama-quantize calls a file's types, as data: LLAMA_FTYPE of llama.cpp's include/llama.h."""

import re
from types import MappingProxyType
from typing import Final, NamedTuple

from converter.dtypes import GGML_BY_NAME, GgmlType


class FileType(NamedTuple):
    """LLAMA_FTYPE's number, and the type that most tensors get (llama_ftype_get_default_type, src/llama-quant.cpp)."""

    id: int
    type: GgmlType


FILE_TYPES: Final = MappingProxyType(
    {
        name: FileType(number, GGML_BY_NAME[own])
        for name, number, own in (
            ("Q8_0", 7, "Q8_0"),
            ("Q6_K", 18, "Q6_K"),
            ("Q5_K_M", 17, "Q5_K"),
            ("Q5_K_S", 16, "Q5_K"),
            ("Q4_K_M", 15, "Q4_K"),
            ("Q4_K_S", 14, "Q4_K"),
            ("Q3_K_M", 12, "Q3_K"),
            ("IQ4_NL", 25, "IQ4_NL"),
            ("IQ4_XS", 30, "IQ4_XS"),
            ("MXFP4_MOE", 38, "MXFP4"),
        )
    }
)

# What one tensor may be asked as: what libgguf writes byte for byte as ggml does, and floats.
TYPES: Final = (
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "Q3_K", "Q2_K", "IQ4_NL",
    "IQ4_XS", "MXFP4",
)  # fmt: skip


def tensor_type(text: str) -> tuple[str, str]:
    """The pattern and the type of PATTERN=TYPE. Raises ValueError, saying what was found and what was wanted."""
    pattern, _, name = text.rpartition("=")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no pattern: {error}") from error
    if not pattern:
        raise ValueError(f"{text!r}: wanted PATTERN=TYPE, as in attn_v=q8_0")
    if name.upper() not in TYPES:
        raise ValueError(f"{name!r} is not one of {', '.join(map(repr, TYPES))}.")
    return pattern.lower(), name.upper()
