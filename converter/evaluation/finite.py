"""Whether what is written holds NaN, infinity, or a number that a norm would square to infinity.

One such number spreads over every logit. An adapter's are refused before (NM001, NM004), so they are the base's. Of
block types the scales are looked at, for the rest are integers: the block structs in ggml/src/ggml-common.h of
https://github.com/ggml-org/llama.cpp.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from converter.dtypes import GgmlType
from converter.errors import ConverterError

NOT_FINITE_CODE: Final = "NM012"

# Each float type's integer of the same size, and the bits of the first number that is too large.
Limits = Mapping[str, tuple[str, int]]
# 2^60, whose square times a width is near float32's end. Of F16's numbers only infinity is that large.
_LIMITS: Final[Limits] = {
    "F64": ("<u8", 0x43B0_0000_0000_0000),
    "F32": ("<u4", 0x5D80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x5D80),
}
# 2^16, which F16 hasn't. No weight of a model is that large (what a host adds to one may be), and llama.cpp computes in
# F16 in places: a norm of 70,000 made the logits of a tiny Gemma 3 NaN.
_LIMITS_OF_WEIGHTS: Final[Limits] = {
    **_LIMITS,
    "F64": ("<u8", 0x40F0_0000_0000_0000),
    "F32": ("<u4", 0x4780_0000),
    "BF16": ("<u2", 0x4780),
}
# Where the F16 scales of a block lie. IQ1_M spreads its own over the block, NVFP4 and MXFP4 have scales of 8 bits.
_SCALES: Final[Mapping[str, tuple[int, ...]]] = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,),
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
    "IQ1_S": (0,), "IQ2_XXS": (0,), "IQ2_XS": (0,), "IQ2_S": (0,), "IQ3_XXS": (0,), "IQ3_S": (0,),
    "IQ4_NL": (0,), "IQ4_XS": (0,), "TQ1_0": (52,), "TQ2_0": (64,),
}  # fmt: skip


# Frequencies are divided by these, and by a huge one where they aren't to turn (Gemma 4's 1e30).
_INFINITY: Final = 0x7F80_0000  # of F32, which llama.cpp wants them in
DIVISORS: Final = frozenset({"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})


def refuse_non_finite(data: bytes | memoryview, ggml_type: GgmlType, name: str, *, of_base: bool = False) -> None:
    """Raise ConverterError with code NM012, status 2, where whole blocks hold such a number.

    ``of_base``: they are the base's own, as they are.
    """
    limits = _LIMITS_OF_WEIGHTS if of_base else _LIMITS
    is_fine = (
        _are_below(np.frombuffer(data, "<u4"), _INFINITY) if name in DIVISORS else is_finite(data, ggml_type, limits)
    )
    if not is_fine:
        raise ConverterError(
            f"{NOT_FINITE_CODE}: {name}: the base's own numbers are NaN, infinite or beyond 65504 there; get it again"
        )


def is_finite(data: bytes | memoryview, ggml_type: GgmlType, limits: Limits = _LIMITS) -> bool:
    """Whether whole blocks of a type hold no such number, as far as their floats tell."""
    name = ggml_type.name
    if name in limits:
        form, limit = limits[name]
        return _are_below(np.frombuffer(data, form), limit)
    form, limit = _LIMITS["F16"]
    for offset in _SCALES.get(name, ()):
        block = np.dtype({"names": ["d"], "formats": [form], "offsets": [offset], "itemsize": ggml_type.type_size})
        if not _are_below(np.frombuffer(data, block)["d"], limit):
            return False
    return True


def _are_below(words: npt.NDArray[np.unsignedinteger[Any]], limit: int) -> bool:
    # Bits are ordered as magnitudes are. Negative numbers have the largest words, and are the smallest signed ones.
    sign, signed = 1 << 8 * words.itemsize - 1, words.view(words.dtype.str.replace("u", "i"))
    return not words.size or (int(words.max()) < sign + limit and int(signed.max()) < limit)
