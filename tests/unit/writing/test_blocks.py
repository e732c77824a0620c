"""A tensor's bytes: the right numbers, and the same whatever the size of a block or the number of BLAS threads."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants

from converter.dtypes import BF16, F16, F32, GGML_BY_NAME, Q8_0, GgmlType
from converter.errors import COULD_NOT, ConverterError, RuleBroken
from converter.evaluation.compiled import Compiled, compiled
from converter.evaluation.encode import decode
from converter.evaluation.rounded_sum import Merging, Rounded
from converter.orders import every, order
from converter.planning.conversion_plan import PlannedTensor
from converter.read.stored import StoredTensor
from converter.sources import (
    CopiedBytes,
    Delta,
    Filled,
    Given,
    JoinedColumns,
    JoinedRows,
    Magnitude,
    Merged,
    NegativeExp,
    Piece,
    Placed,
    Product,
    ReplacedRows,
    Rows,
    Scaled,
    Source,
    Stacked,
    StoredColumns,
    StoredRows,
    WideEmbedding,
    Zeros,
)
from converter.writing.blocks import DeltaKept, blocks, tasks
from tests.kernels import require

N_ROWS, N_COLUMNS, RANK = 48, 64, 5
ORDER = order("3 2 8 -> 3 8 2", N_ROWS, {})
PERMUTED = [head * 16 + half * 8 + i for head in range(3) for i in range(8) for half in (0, 1)]
COLUMNS = order("4 2 _ -> 2 _ 4", N_COLUMNS, {})
TURNED = [a * 16 + b * 8 + c for b in (0, 1) for c in range(8) for a in range(4)]
BLOCK_SIZES = (1, 64, 100, 640, 1 << 20)
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16}


class Store:
    """One file of tensors, each of seeded random numbers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def put(self, values: np.ndarray, dtype: str) -> StoredTensor:
        if dtype in DTYPES:
            data = values.astype(DTYPES[dtype]).tobytes()
        else:
            data = quants.quantize(values.astype(np.float32), GGMLQuantizationType[dtype]).tobytes()
        offset = self.path.stat().st_size
        with self.path.open("ab") as file:
            file.write(data)
        return StoredTensor(self.path, offset, len(data), values.shape, dtype)

    def random(self, *shape: int, dtype: str = "F32") -> StoredTensor:
        return self.put(np.random.default_rng(len(shape) * shape[0]).standard_normal(shape), dtype)


def numbers(tensor: StoredTensor) -> np.ndarray:
    data = tensor.path.read_bytes()[tensor.offset : tensor.offset + tensor.nbytes]
    if tensor.dtype in DTYPES:
        return np.frombuffer(data, DTYPES[tensor.dtype]).reshape(tensor.shape).astype(np.float64)
    stored = np.frombuffer(data, np.uint8).reshape(tensor.shape[0], -1)
    return quants.dequantize(stored, GGMLQuantizationType[tensor.dtype]).astype(np.float64)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def encoded(tensor: PlannedTensor, n_elements: int = 1 << 17) -> bytes:
    return b"".join(map(bytes, blocks(tensor, DeltaKept(tensor.name), n_elements)))


def merged(store: Store, base: str = "F32", factors: str = "F32") -> Merged:
    left = StoredRows("b", store.random(N_ROWS, RANK, dtype=factors), ORDER)
    right = StoredRows("a", store.random(RANK, N_COLUMNS, dtype=factors))
    return Merged(StoredRows("w", store.random(N_ROWS, N_COLUMNS, dtype=base)), (Delta(left, right, 0.3),))


def merged_embedding(store: Store) -> Merged:
    left = StoredColumns("a", store.random(RANK, N_ROWS))
    right = StoredColumns("b", store.random(N_COLUMNS, RANK))
    return Merged(StoredRows("w", store.random(N_ROWS, N_COLUMNS)), (Delta(left, right, 0.3),))


def over_own_base(store: Store) -> Merged:
    source = merged(store)
    return source._replace(base=StoredRows("w", store.random(N_ROWS, N_COLUMNS), ORDER))


def with_magnitudes(store: Store) -> Merged:
    return merged(store)._replace(magnitude=Magnitude(StoredRows("m", store.random(N_ROWS), ORDER), "rows"))


def embedding_with_magnitudes(store: Store) -> Merged:
    return merged_embedding(store)._replace(magnitude=Magnitude(StoredRows("m", store.random(N_COLUMNS)), "columns"))


def with_new_rows(store: Store) -> Merged:
    """The base lacks the last two rows; one in the middle is replaced as well."""
    rows = ReplacedRows(StoredRows("t", store.random(3, N_COLUMNS)), (N_ROWS - 1, 5, N_ROWS - 2))
    return Merged(StoredRows("w", store.random(N_ROWS - 2, N_COLUMNS)), replaced=(rows,))


def minus_another(store: Store) -> Merged:
    left, right = StoredRows("b0", store.random(N_ROWS, 3)), StoredRows("a0", store.random(3, N_COLUMNS))
    source = merged(store)
    return source._replace(deltas=(*source.deltas, Delta(left, right, -0.2)))


def one_experts_factors(store: Store) -> Merged:
    """Of four experts the third."""
    left = StoredRows("b", store.random(N_ROWS, 4 * RANK), ORDER, columns=every(4, 2, 4 * RANK))
    right = StoredRows("a", store.random(4 * RANK, N_COLUMNS).slabs(4).slab(2))
    return Merged(StoredRows("w", store.random(N_ROWS, N_COLUMNS)), (Delta(left, right, 0.3),))


def joined(store: Store) -> JoinedRows:
    beside = (StoredRows("b", store.random(20, 24), scale=0.5), StoredRows("b0", store.random(20, 40)))
    return JoinedRows((Zeros((7, N_COLUMNS)), JoinedColumns(beside), StoredRows("a", store.random(21, N_COLUMNS))))


def placed(store: Store) -> Placed:
    """A merged matrix cut in two that change places, and a product over another one."""
    matrix, other = merged(store), StoredRows("o", store.random(9, 20), scale=0.5)
    left = Given.of(np.random.default_rng(3).standard_normal((4, 9)))
    product = Product(left, StoredRows("v", store.random(9, 1)), other)
    half = N_ROWS // 2
    pieces = (
        Piece(matrix, (half, 0), (0, half), (0, 40)),
        Piece(matrix, (0, 4), (half, N_ROWS), (4, 40), 0.7),
        Piece(product, (1, 44), (0, 4), (0, 20)),
    )
    return Placed((N_ROWS, N_COLUMNS), pieces)


def wide_embedding(store: Store) -> WideEmbedding:
    embedding = StoredRows("w", store.random(N_ROWS, N_COLUMNS - RANK - 32))
    head = Delta(StoredRows("b", store.random(N_ROWS, RANK)), StoredRows("a", store.random(RANK, 8)), 0.3)
    mixing = Given.of(0.1 * np.eye(RANK))
    return WideEmbedding((N_ROWS, N_COLUMNS), embedding, (head,), mixing, 0.7, 0.25, 1000.0)


# Each source of rows, and what it should hold.
SOURCES: dict[str, Callable[[Store], Source]] = {
    "copy": lambda store: CopiedBytes("w", store.random(N_ROWS, N_COLUMNS, dtype="Q4_0")),
    "rows": lambda store: StoredRows("w", store.random(N_ROWS, N_COLUMNS)),
    "rows of another type": lambda store: StoredRows("w", store.random(N_ROWS, N_COLUMNS, dtype="BF16")),
    "ordered rows": lambda store: StoredRows("w", store.random(N_ROWS, N_COLUMNS), ORDER),
    "ordered columns": lambda store: StoredRows("w", store.random(N_ROWS, N_COLUMNS), ORDER, columns=COLUMNS),
    "scaled rows": lambda store: StoredRows("w", store.random(N_ROWS, N_COLUMNS), ORDER, 0.7),
    "columns": lambda store: StoredColumns("a", store.random(N_COLUMNS, N_ROWS)),
    "merged": merged,
    "merged with bf16": lambda store: merged(store, "BF16", "BF16"),
    "merged with Q4_0": lambda store: merged(store, "Q4_0", "F16"),
    "merged over its own base": over_own_base,
    "merged embedding": merged_embedding,
    "times numbers": lambda store: Scaled(StoredRows("w", store.random(N_ROWS, N_COLUMNS), ORDER), (0.3, 1.1)),
    "-exp of": lambda store: NegativeExp(StoredRows("w", store.random(N_ROWS, N_COLUMNS), ORDER)),
    "one added to": lambda store: StoredRows("n", store.random(N_ROWS, N_COLUMNS), ORDER, add=1.0),
    "magnitudes": with_magnitudes,
    "magnitudes of an embedding": embedding_with_magnitudes,
    "new rows": with_new_rows,
    "minus another": minus_another,
    "one expert": one_experts_factors,
    "joined": joined,
    "one value": lambda _: Filled((N_ROWS, N_COLUMNS), 0.3),
    "given": lambda _: Given.of(np.random.default_rng(9).standard_normal((N_ROWS, N_COLUMNS))),
    "placed": placed,
    "a wide embedding": wide_embedding,
}


def expected(source: Source | Product) -> np.ndarray:
    """The numbers of a source, as a whole and in the plainest way."""
    match source:
        case Merged():
            return expected_merge(source)
        case CopiedBytes(_, tensor):
            return numbers(tensor)
        case Stacked(parts):
            return np.stack(list(map(expected, parts)))
        case Product(left, columns, matrix):
            weights = expected(columns)[:, 0] if columns else np.ones(left.shape[1])
            product: np.ndarray = (expected(left) * weights) @ expected(matrix)
            return product
        case Placed() | WideEmbedding():
            return expected_placed(source)
        case rows:
            return expected_rows(rows)


def expected_rows(source: Rows) -> np.ndarray:
    match source:
        case StoredColumns(_, tensor):
            return numbers(tensor).T
        case StoredRows() | NegativeExp() | Scaled():
            return expected_stored(source)
        case Zeros(shape) | Filled(shape):
            return np.full(shape, source.value if isinstance(source, Filled) else 0.0)
        case Given():
            return np.array(source.rows())
        case JoinedRows(parts):
            return np.vstack(list(map(expected_rows, parts)))
        case JoinedColumns(parts):
            return np.hstack(list(map(expected, parts)))


def expected_stored(source: StoredRows | NegativeExp | Scaled) -> np.ndarray:
    if isinstance(source, Scaled):
        products = torch.from_numpy(expected_stored(source.of).astype(np.float32))
        for factor in source.factors:
            products = products * factor
        return np.asarray(products.double())
    if isinstance(source, NegativeExp):
        return np.asarray(-np.exp(expected_stored(source.of)))
    rows = numbers(source.tensor)[PERMUTED] if source.order == ORDER else numbers(source.tensor)
    if source.columns.runs:
        rows = rows[:, TURNED] if source.columns == COLUMNS else rows[:, 2::4]
    return np.asarray(source.scale * rows + source.add)


def expected_placed(source: Placed | WideEmbedding) -> np.ndarray:
    whole = np.zeros(source.shape)
    if isinstance(source, Placed):
        for piece in source.pieces:
            part = piece.factor * expected(piece.matrix)[slice(*piece.rows), slice(*piece.columns)]
            (row, column), (height, width) = piece.at, part.shape
            whole[row : row + height, column : column + width] = part
        return whole
    embedding = source.factor * expected(source.embedding)
    head = np.hstack([delta.scaling * expected(delta.left) for delta in source.head]) @ expected(source.mixing)
    n, r = embedding.shape[1], head.shape[1]
    # As float32 stores it: the filler makes up for the rounding.
    length = np.linalg.norm(embedding, axis=1).astype(np.float32)
    whole[:, :n], whole[:, n : n + r], whole[:, -32], whole[:, -30] = embedding, head, source.constant, length
    whole[:, -31] = np.sqrt(source.norm2 - (whole**2).sum(axis=1))
    return whole


def expected_merge(source: Merged) -> np.ndarray:
    merged = np.zeros((N_ROWS, N_COLUMNS))
    base = expected(source.base)
    merged[: len(base)] = base
    for delta in source.deltas:
        assert delta.right
        merged += delta.scaling * (expected(delta.left) @ expected(delta.right))
    if source.magnitude:
        values, axis = source.magnitude.values, 1 if source.magnitude.of == "rows" else 0
        assert isinstance(values, StoredRows)
        vector = numbers(values.tensor)[PERMUTED] if values.order == ORDER else numbers(values.tensor)
        merged *= np.expand_dims(vector, axis) / np.linalg.norm(merged, axis=axis, keepdims=True)
    for replaced in source.replaced:
        merged[list(replaced.indices)] = expected(replaced.rows)
    return merged


@pytest.mark.parametrize("n_elements", BLOCK_SIZES)
@pytest.mark.parametrize("name", SOURCES)
def test_blocks_of_any_size_give_one_tensor(name: str, n_elements: int, store: Store) -> None:
    source = SOURCES[name](store)
    for ggml_type in [GGML_BY_NAME["Q4_0"]] if name == "copy" else [F32, F16, BF16, Q8_0]:
        tensor = PlannedTensor("w", (N_ROWS, N_COLUMNS), ggml_type, source)
        assert encoded(tensor, n_elements) == encoded(tensor)
        assert len(encoded(tensor)) == tensor.nbytes


@pytest.mark.parametrize("name", SOURCES)
def test_a_tensor_holds_what_its_source_says(name: str, store: Store) -> None:
    source = SOURCES[name](store)
    ggml_type = GGML_BY_NAME["Q4_0"] if name == "copy" else F32
    data = np.frombuffer(encoded(PlannedTensor("w", (N_ROWS, N_COLUMNS), ggml_type, source)), np.uint8)
    stored = data.reshape(N_ROWS, -1)
    found = decode(stored.view("<f4") if ggml_type is F32 else stored, ggml_type)
    np.testing.assert_array_equal(found, expected(source).astype(np.float32))


def test_a_vector_is_rows_of_one(store: Store) -> None:
    source = StoredRows("w", store.random(N_ROWS), ORDER)
    found = np.frombuffer(encoded(PlannedTensor("b", (N_ROWS,), F32, source), 7), "<f4")
    np.testing.assert_array_equal(found, numbers(source.tensor)[PERMUTED].astype(np.float32))


MERGE = """
import sys
from pathlib import Path
import numpy as np
import threadpoolctl
from tests.unit.writing.test_blocks import Store, merged_large
threadpoolctl.threadpool_limits(int(sys.argv[1]), "blas")
print(merged_large(Store(Path(sys.argv[2]))))
"""


def merged_large(store: Store) -> str:
    """The SHA-256 of a merge large enough for BLAS to share it among threads."""
    left, right = StoredRows("b", store.random(512, 32)), StoredRows("a", store.random(32, 1024))
    source = Merged(StoredRows("w", store.random(512, 1024)), (Delta(left, right, 0.3),))
    return hashlib.sha256(encoded(PlannedTensor("w", (512, 1024), F16, source), 1 << 30)).hexdigest()


def test_blas_threads_change_no_byte(tmp_path: Path) -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", MERGE, str(n_threads), str(tmp_path / str(n_threads))],
            check=True, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[3],
        ).stdout
        for n_threads in (1, 2)
    }  # fmt: skip
    assert len(digests) == 1


def test_experts_lie_one_after_the_other(store: Store) -> None:
    parts = (merged(store), StoredRows("w", store.random(N_ROWS, N_COLUMNS)), merged(store, "BF16"))
    stacked = PlannedTensor("w", (3, N_ROWS, N_COLUMNS), F32, Stacked(parts))
    assert encoded(stacked, 640) == expected(stacked.source).astype("<f4").tobytes()


def test_a_bias_grows_out_of_nothing(store: Store) -> None:
    b = StoredRows("b.bias", store.random(N_ROWS), ORDER)
    bias = PlannedTensor("b", (N_ROWS,), F32, Merged(Zeros((N_ROWS,)), (Delta(b, None, 0.5),)))
    assert encoded(bias, 7) == (0.5 * numbers(b.tensor)[PERMUTED]).astype("<f4").tobytes()


# --- In one pass ------------------------------------------------------------------------------------------------------


def by_kernels() -> Compiled:
    require()
    return compiled()


@pytest.mark.parametrize("n_elements", [640, 1 << 20])
@pytest.mark.parametrize("name", [name for name in SOURCES if name != "copy"])
def test_what_is_compiled_changes_no_byte(name: str, n_elements: int, store: Store) -> None:
    fast = by_kernels()
    source, called = SOURCES[name](store), 0

    def counted(function: Callable[..., Rounded | None]) -> Callable[..., Rounded | None]:
        def call(*terms: Any) -> Rounded | None:
            nonlocal called
            called += 1
            return function(*terms)

        return call

    for ggml_type in F32, F16, BF16, Q8_0:
        tensor = PlannedTensor("w", (N_ROWS, N_COLUMNS), ggml_type, source)
        assert fast.merging
        merging = Merging(counted(fast.merging.rounded_sum), counted(fast.merging.merged), fast.merging.sums_of)
        made = [task() for task in tasks(tensor, n_elements, fast._replace(merging=merging))]
        assert b"".join(bytes(block.data) for block in made) == encoded(tensor)
        kept, plain = DeltaKept("w"), DeltaKept("w")
        for block in made:
            kept.add(block.sums)
        for _ in blocks(tensor, plain, n_elements):
            pass
        assert (kept.norm2, kept.error_norm2) == pytest.approx((plain.norm2, plain.error_norm2), rel=1e-9)
        assert kept.share == (plain.share and pytest.approx(plain.share, rel=1e-9))
    assert bool(called) == (name not in STEP_BY_STEP)


STEP_BY_STEP = {
    "magnitudes", "magnitudes of an embedding", "new rows", "minus another", "placed", "a wide embedding",
}  # fmt: skip


def test_the_compiled_loop_keeps_the_sign_of_zero(store: Store) -> None:
    source = StoredRows("w", store.put(np.array([[0.0, -0.0, -1.0]]), "BF16"))
    (task,) = tasks(PlannedTensor("w", (1, 3), F16, source), fast=by_kernels())
    assert bytes(task().data).hex() == "0000008000bc"


def test_what_is_too_large_is_told_by_the_plain_way(store: Store) -> None:
    source = merged(store)
    source = source._replace(deltas=(source.deltas[0]._replace(scaling=1e6),))
    tensor = PlannedTensor("blk.0.w", (N_ROWS, N_COLUMNS), F16, source)
    with pytest.raises(RuleBroken, match=r"^NM010: blk\.0\.w: .*--outtype f32$") as plain:
        encoded(tensor)
    with pytest.raises(RuleBroken) as found:
        [task() for task in tasks(tensor, fast=by_kernels())]
    assert str(found.value) == str(plain.value)


# --- Delta kept -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ggml_type", [F32, F16, BF16, Q8_0], ids=lambda ggml_type: ggml_type.name)
def test_what_is_kept_of_a_delta_is_measured(ggml_type: GgmlType, store: Store) -> None:
    source = merged(store)
    kept = DeltaKept("w")
    data = b"".join(map(bytes, blocks(PlannedTensor("w", (N_ROWS, N_COLUMNS), ggml_type, source), kept, 640)))
    stored = np.frombuffer(data, np.uint8).reshape(N_ROWS, -1)
    if ggml_type.is_float:
        stored = stored.view(DTYPES[ggml_type.name])
    delta = expected(source) - expected(source.base)
    error = decode(stored, ggml_type).astype(np.float64) - expected(source)
    assert kept.share == pytest.approx(((delta + error) * delta).sum() / (delta**2).sum(), rel=1e-9)
    assert kept.noise == pytest.approx(np.sqrt((error**2).sum() / (delta**2).sum()), rel=1e-6)


def test_a_delta_below_the_last_place_is_lost(store: Store) -> None:
    ones = StoredRows("w", store.put(np.ones((N_ROWS, N_COLUMNS)), "F32"))
    left, right = StoredRows("b", store.random(N_ROWS, RANK)), StoredRows("a", store.random(RANK, N_COLUMNS))
    kept = DeltaKept("w")
    source = Merged(ones, (Delta(left, right, 1e-6),))
    assert list(blocks(PlannedTensor("w", (N_ROWS, N_COLUMNS), BF16, source), kept))
    assert kept.share == pytest.approx(0, abs=1e-9)
    assert kept.noise == pytest.approx(1)


def test_of_a_delta_of_zero_nothing_is_kept_or_lost() -> None:
    assert (DeltaKept("w").share, DeltaKept("w").noise) == (None, None)


# --- Files that end early ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["copy", "rows", "ordered rows", "columns", "merged", "merged with Q4_0"])
def test_a_file_that_shrank_is_told(name: str, store: Store) -> None:
    source = SOURCES[name](store)
    with store.path.open("r+b") as file:
        file.truncate(store.path.stat().st_size - 100)
    with pytest.raises(ConverterError, match="store: ended while it was read; it is truncated or changing") as refused:
        encoded(PlannedTensor("w", (N_ROWS, N_COLUMNS), GGML_BY_NAME["F32"], source))
    assert refused.value.status == COULD_NOT
