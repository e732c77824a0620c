"""The GGML type of each touched tensor."""

from typing import Final

from converter.dtypes import BF16, F16, F32, GGML_BY_NAME, Q8_0, GgmlType
from converter.errors import ConverterError

OUTTYPES: Final = ("auto", "f32", "f16", "bf16", "q8_0", "as-base")
_BY_NAME: Final = {"f32": F32, "f16": F16, "bf16": BF16, "q8_0": Q8_0}


def merged_type(outtype: str | None, base_dtype: str, name: str, n_columns: int) -> GgmlType:
    """The type of a merged tensor.

    auto: F32 stays F32 (nothing is to be lost by default), F16 and BF16 become F16 (3 mantissa bits more than BF16, at
    the same size), quantised becomes Q8_0, or F16 where a row is not a whole number of blocks.

    Raises ConverterError where the asked type can't hold the tensor's rows.
    """
    asked = _asked(outtype, base_dtype)
    if asked.fits(n_columns):
        return asked
    if outtype in (None, "auto"):
        return F16
    raise ConverterError(
        f"{name}: rows of {n_columns} elements don't fit {asked.name} (blocks of {asked.block_size}); use --outtype f16"
    )


def _asked(outtype: str | None, base_dtype: str) -> GgmlType:
    if outtype in _BY_NAME:
        return _BY_NAME[outtype]
    if outtype == "as-base":
        return GGML_BY_NAME.get(base_dtype, F32)
    if base_dtype in ("F32", "F64"):
        return F32
    return F16 if base_dtype in ("F16", "BF16") else Q8_0


# What the factors of a LoRA GGUF are stored as: their own type; F64 is rounded once, FP8 fits F16 exactly.
_STORED: Final = {"F64": F32, "F32": F32, "F16": F16, "BF16": BF16, "F8_E4M3": F16, "F8_E5M2": F16}


def factor_type(outtype: str | None, dtype: str) -> GgmlType:
    """The type of a LoRA GGUF's factor stored as ``dtype``. Raises ConverterError for a quantised outtype."""
    if outtype in (None, "auto", "as-base"):
        return _STORED[dtype]
    if outtype == "q8_0":
        raise ConverterError(
            "--outtype q8_0 with --to lora: factors are not quantised; leave --outtype out, or use f16"
        )
    return _BY_NAME[outtype]
