"""Shapes that may differ, and the row order against the fixtures' own."""

import numpy as np
import pytest

from converter.architectures import Place
from converter.derive.module_paths import HEAD
from converter.verification.orders import rows_of_huggingface
from converter.verification.tensors import fits
from fixtures.tiny_gguf import _interleave

Q_PROJ = Place("model.layers.0.self_attn.q_proj", "blk.0.attn_q", ("q", "hidden"), "n_head 2 _ -> n_head _ 2")
O_PROJ = Place("model.layers.0.self_attn.o_proj", "blk.0.attn_output", ("hidden", "q"))
LM_HEAD = Place(HEAD, "output", ("vocab", "hidden"))


@pytest.mark.parametrize("rows", [slice(0, 96), slice(7, 50), slice(95, 96)])
def test_interleaved_rows_are_those_the_fixtures_write(rows: slice) -> None:
    values = np.arange(96 * 2, dtype=np.float32).reshape(96, 2)
    source = rows_of_huggingface(Q_PROJ, {"n_head": 4, "q": 96}, (96, 2), rows)
    assert np.array_equal(values[source], _interleave(values, 4)[rows])


def test_other_rows_stay_where_they_are() -> None:
    assert rows_of_huggingface(O_PROJ, {}, (64, 96), slice(3, 9)) == slice(3, 9)


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("rows", [slice(0, 24), slice(5, 17), slice(11, 12)])
def test_halves_of_fused_experts_are_those_the_fixtures_write(half: int, rows: slice) -> None:
    fused = np.arange(3 * 16 * 2).reshape(3, 16, 2)  # gate and up of three experts, eight rows each
    halves, dims = np.split(fused, 2, axis=1), {"e": 3, "gu": 16, "h": 2}
    place = Place("model.layers.0.mlp.experts.gate_up_proj", "blk.0.ffn_up_exps", tuple(dims), f"2 _ -> 2={half} _")
    source = rows_of_huggingface(place, dims, (3, 8, 2), rows)
    assert np.array_equal(fused.reshape(-1, 2)[source], halves[half].reshape(-1, 2)[rows])
    assert fits((3, 8, 2), (3, 16, 2), place, dims, 0)
    assert not fits((3, 16, 2), (3, 16, 2), place, dims, 0)


def test_only_a_vocabulary_may_be_trimmed_and_only_to_its_tokens() -> None:
    assert fits((300, 64), (320, 64), LM_HEAD, {}, 0)
    assert fits((300, 64), (320, 64), LM_HEAD, {}, 300)
    assert not fits((300, 64), (320, 64), LM_HEAD, {}, 301)
    assert not fits((320, 64), (300, 64), LM_HEAD, {}, 0)
    assert not fits((300, 32), (320, 64), LM_HEAD, {}, 0)
    assert not fits((32, 64), (64, 64), O_PROJ, {}, 0)
