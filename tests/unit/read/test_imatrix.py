"""Importance matrices in both formats: the numbers as llama-quantize takes them, and files that are none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converter.errors import COULD_NOT, ConverterError
from converter.evaluation.importance import importance_of
from converter.read.imatrix import read_imatrix
from fixtures.imatrix import DATASET, N_CHUNKS, Sums, write_imatrix, write_old_imatrix
from tests.rules.specimens import write_gguf

load_imatrix = pytest.importorskip("libgguf", reason="needs libgguf (the extra quants)").load_imatrix

SUMS = {
    "blk.0.attn_q.weight": np.linspace(0, 9, 64, dtype=np.float32)[None],
    "blk.0.ffn_up_exps.weight": np.arange(3 * 32, dtype=np.float32).reshape(3, 32),
}
Write = Callable[[Path, Sums], Path]
WRITERS: list[Write] = [write_imatrix, write_old_imatrix]


@pytest.mark.parametrize("write", WRITERS)
def test_numbers_are_those_of_another_reader(write: Write, tmp_path: Path) -> None:
    imatrix = read_imatrix(write(tmp_path / "i", SUMS))
    assert (imatrix.dataset, imatrix.n_chunks, set(imatrix.entries)) == (DATASET, N_CHUNKS, set(SUMS))
    for name, values in load_imatrix(tmp_path / "i").items():
        assert importance_of(imatrix.entries[name]).tobytes() == values.tobytes()


def test_each_expert_has_its_part(tmp_path: Path) -> None:
    entry = read_imatrix(write_imatrix(tmp_path / "i", SUMS)).entries["blk.0.ffn_up_exps.weight"]
    parts = [importance_of(entry.of_matrix(i, 3)) for i in range(3)]
    assert parts[0].tolist() == [1.0] * 32  # it was never called
    assert parts[2].tolist() == (SUMS["blk.0.ffn_up_exps.weight"][2] / 2).tolist()


def _read_all(path: Path) -> None:
    for entry in read_imatrix(path).entries.values():
        importance_of(entry)


def refusal(path: Path) -> str:
    with pytest.raises(ConverterError) as refused:
        _read_all(path)
    assert refused.value.status == COULD_NOT
    assert str(path) in refused.value.message
    return refused.value.message


@pytest.mark.parametrize("write", WRITERS)
def test_a_truncated_one_is_refused(write: Write, tmp_path: Path) -> None:
    whole = write(tmp_path / "i", SUMS).read_bytes()
    n_needed = len(whole) - (8 + len(DATASET) if write is write_old_imatrix else 32)  # the dataset; padding
    for n in range(0, n_needed, 13):
        (tmp_path / "cut").write_bytes(whole[:n])
        refusal(tmp_path / "cut")


def test_another_gguf_is_refused(tmp_path: Path) -> None:
    assert "is no imatrix: it has no imatrix.datasets" in refusal(write_gguf(tmp_path / "base.gguf"))


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = write_imatrix(tmp_path / "i", {"w": np.full((1, 4), np.inf, np.float32)})
    assert refusal(path).endswith("holds values that are not finite; make the imatrix again")


def test_sums_without_counts_that_fit_are_refused(tmp_path: Path) -> None:
    sums, counts = {"w": np.ones((1, 4), np.float32)}, {"w": np.ones((3, 1), np.float32)}
    assert "w: 4 sums and 3 counts don't fit" in refusal(write_imatrix(tmp_path / "i", sums, counts=counts))
