"""The compiled loop at every level against the plain way, byte for byte, for any base, product and scaling."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from converter.dtypes import BF16, F16, F32, GgmlType
from converter.errors import RuleBroken
from converter.evaluation.encode import encode
from converter.evaluation.finite import is_finite
from converter.evaluation.native import Kernels
from converter.evaluation.native.merging import merging
from converter.evaluation.rounded_sum import Sums
from tests.kernels import levels

pytestmark = pytest.mark.parametrize("kernels", levels(), ids=lambda kernels: f"level {kernels.level}")
STORED = {"F32": "<u4", "F16": "<u2", "BF16": "<u2", "F64": "<u8"}
NUMBERS = {"F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16, "F64": "<f8"}
TYPES = st.sampled_from([F16, BF16, F32])
BASES = st.sampled_from(sorted(STORED))
Terms = tuple[np.ndarray, np.ndarray, float]


@st.composite
def any_terms(draw: st.DrawFn) -> Terms:
    """Any bits as a base, NaN and infinity among them, and any float64 values as the product."""
    n = draw(st.integers(1, 40))
    name = draw(BASES)
    bits = draw(st.lists(st.integers(0, 256 ** int(STORED[name][-1]) - 1), min_size=n, max_size=n))
    product = draw(st.lists(st.floats(width=64), min_size=n, max_size=n))
    return np.array([bits], STORED[name]).view(NUMBERS[name]), np.array([product]), draw(st.floats(width=64))


@st.composite
def close_terms(draw: st.DrawFn, to: GgmlType) -> Terms:
    """Weights as they are, and a product that leads to a tie of the type, beside one, to nothing or below its range."""
    name, n = draw(BASES), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = 2.0 ** draw(st.integers(-40, 3))
    base = (random.standard_normal((1, n)) * size).astype(NUMBERS[name])
    exact = base.astype(np.float64)
    places = {"F16": 10, "BF16": 7, "F32": 23}[to.name]
    _, exponent = np.frexp(exact)
    least = {"F16": -24.0, "BF16": -133.0, "F32": -149.0}[to.name]
    place = np.ldexp(1.0, np.maximum(exponent - 1 - places, int(least)))
    tie = (np.floor(exact / place) + random.integers(-2, 3, exact.shape) + 0.5) * place
    beside = random.choice([0.0, 2.0**-40, -(2.0**-40), 2.0**-20, -(2.0**-20)], exact.shape)
    wanted = random.choice([0, 1, 2, 3], exact.shape)
    target = np.choose(wanted, [tie + beside * place, np.zeros_like(tie), tie * 1e-6, exact * (1 + 1e-3)])
    return base, (target - exact) / 2, 2.0


def plainly(terms: Terms, to: GgmlType) -> np.ndarray | None:
    """What the float64 way makes of it; None where that refuses."""
    base, product, scaling = terms
    with np.errstate(all="ignore"):
        try:
            encoded = encode(base.astype(np.float64) + product * scaling, to, "w")
        except RuleBroken:
            return None
    return encoded if is_finite(encoded.tobytes(), to) else None


def assert_the_same(kernels: Kernels, terms: Terms, to: GgmlType, largest: float) -> None:
    wanted, found = plainly(terms, to), merging(kernels).rounded_sum(*terms, to)
    if found is None:
        base, product, scaling = terms
        assert wanted is None or np.abs(base.astype(np.float64) + product * scaling).max() > largest
    else:
        assert wanted is not None
        assert found.values.tobytes() == wanted.tobytes()
        assert found.values.dtype == wanted.dtype


LARGEST = {"F16": 65504.0, "BF16": 2.0**59, "F32": 2.0**59}


@given(any_terms(), TYPES)
@settings(deadline=None)
@example((np.array([[-0.0, 0.0]], "<f4"), np.array([[-0.0, -0.0]]), 1.0), F16)
@example((np.array([[2.0**-25, 65504.0, -65504.0]], "<f4"), np.array([[0.0, 0.0, 0.0]]), 1.0), F16)
@example((np.array([[65504.0]], "<f4"), np.array([[2.0**-30]]), 1.0), F16)
@example((np.array([[np.nan]], "<f2"), np.array([[0.0]]), 1.0), F16)
@example((np.array([[np.inf, -np.inf]], "<f2"), np.array([[0.0, 0.0]]), 1.0), F32)
def test_any_terms(kernels: Kernels, terms: Terms, to: GgmlType) -> None:
    with np.errstate(all="ignore"):
        assert_the_same(kernels, terms, to, LARGEST[to.name])


@given(TYPES.flatmap(lambda to: st.tuples(close_terms(to), st.just(to))))
@settings(deadline=None)
def test_ties_and_what_lies_beside_them(kernels: Kernels, case: tuple[Terms, GgmlType]) -> None:
    terms, to = case
    found = merging(kernels).rounded_sum(*terms, to)
    assert found is not None
    assert_the_same(kernels, terms, to, LARGEST[to.name])
    assert_same_sums(terms, to, found.sums)


def assert_same_sums(terms: Terms, to: GgmlType, sums: Any) -> None:
    base, product, scaling = terms
    delta = product * scaling
    served = base.astype(np.float64) + delta
    wanted = Sums.of(encode(served, to, "w").astype(np.float64) - served, delta)
    np.testing.assert_allclose(sums[0], wanted[0], rtol=1e-12)
    np.testing.assert_allclose(sums[2], wanted[2], rtol=1e-12)
    assert abs(sums[1] - wanted[1]) <= 1e-12 * np.sqrt(wanted[0] * wanted[2])


@given(
    st.sampled_from([1, 2, 7, 16, 64, 300, 512]), st.sampled_from(["F32", "BF16", "F16"]), TYPES, st.integers(0, 2**32),
    st.sampled_from([0.3, 2.0, 1e-6, 300.0, -1.0]),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_products_of_factors(  # noqa: PLR0917
    kernels: Kernels, rank: int, dtype: str, to: GgmlType, seed: int, scaling: float
) -> None:
    """Factors of any rank whose terms cancel, over a base that they nearly undo."""
    random = np.random.default_rng(seed)
    left = random.standard_normal((5, rank)) * 10.0 ** random.uniform(-6, 1)
    right = random.standard_normal((rank, 33)) * 10.0 ** random.uniform(-6, 1, (1, 33))
    left[:, rank // 2 :] *= -1
    product = left.astype(NUMBERS[dtype]).astype(np.float64) @ right.astype(NUMBERS[dtype]).astype(np.float64)
    undone = random.choice([0.0, 1.0, -1.0], product.shape)
    with np.errstate(all="ignore"):
        base = (undone * product * scaling).astype(NUMBERS[dtype])
        assert_the_same(kernels, (base, product, scaling), to, LARGEST[to.name])


@pytest.mark.parametrize("to", [F16, F32], ids=lambda to: to.name)
def test_a_product_in_parts(kernels: Kernels, to: GgmlType) -> None:
    """Of more numbers than are multiplied at once: the last of its parts is narrower."""
    random = np.random.default_rng(11)
    base = (random.standard_normal((300, 1001)) * 0.02).astype(ml_dtypes.bfloat16)
    left, right = random.standard_normal((300, 3)), random.standard_normal((3, 1001))
    found = merging(kernels).merged(base, left, right, 0.01, to)
    assert found is not None
    terms = base, left @ right, 0.01
    wanted = plainly(terms, to)
    assert wanted is not None
    assert found.values.tobytes() == wanted.tobytes()
    assert_same_sums(terms, to, found.sums)
