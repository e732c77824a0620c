"""Numbers that spread over every logit are told from bytes; where they lie in blocks, gguf's dequantising says."""

import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from converter.dtypes import GGML_BY_NAME
from converter.errors import ConverterError
from converter.evaluation.finite import is_finite, refuse_non_finite

FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16}
BLOCKS = [
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ2_XXS", "IQ2_XS",
    "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0",
]  # fmt: skip


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf, 2.0**61, -(2.0**61)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_one_number_is_enough(dtype: str, value: float) -> None:
    values = np.random.default_rng(0).standard_normal(1000)
    assert is_finite(values.astype(FLOATS[dtype]).tobytes(), GGML_BY_NAME[dtype])
    values[777] = value
    with np.errstate(over="ignore"):
        data = values.astype(FLOATS[dtype]).tobytes()
    assert not is_finite(data, GGML_BY_NAME[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_weight_of_a_base_is_within_f16(dtype: str) -> None:
    """What a host computes may be larger."""
    ggml_type = GGML_BY_NAME[dtype]
    refuse_non_finite(np.array([65280.0, -65280.0]).astype(FLOATS[dtype]).tobytes(), ggml_type, "x", of_base=True)
    with np.errstate(over="ignore"):
        data = np.array([1.0, -70_000.0]).astype(FLOATS[dtype]).tobytes()
    with pytest.raises(ConverterError, match=r"^NM012: x: "):
        refuse_non_finite(data, ggml_type, "x", of_base=True)
    assert is_finite(data, ggml_type) == (dtype != "F16")


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_largest_of_f16_are_numbers(dtype: str) -> None:
    data = np.array([65504.0, -65504.0, 0.0, -0.0, 6e-8]).astype(FLOATS[dtype]).tobytes()
    assert is_finite(data, GGML_BY_NAME[dtype])


@pytest.mark.parametrize("dtype", BLOCKS)
def test_a_block_is_broken_where_gguf_makes_nan_of_it(dtype: str) -> None:
    ggml_type = GGML_BY_NAME[dtype]
    found, wanted = [], []
    for at in range(0, ggml_type.type_size - 1, 2):
        blocks = np.zeros((3, ggml_type.type_size), np.uint8)
        blocks[1, at : at + 2] = np.array([np.nan], "<f2").view(np.uint8)
        with np.errstate(invalid="ignore"):
            values = quants.dequantize(blocks, GGMLQuantizationType[dtype])
        wanted += [at] if np.isnan(values).any() else []
        found += [at] if not is_finite(blocks.tobytes(), ggml_type) else []
    assert wanted
    assert found == wanted


def test_nothing_is_finite() -> None:
    assert is_finite(b"", GGML_BY_NAME["F32"])
    assert is_finite(b"", GGML_BY_NAME["Q8_0"])
