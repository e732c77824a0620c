"""Row orders against an independent formula, and against what they are for: the rotary embedding."""

import math

import numpy as np
import pytest

from converter.architectures import architecture_named
from converter.row_orders import IDENTITY, InterleaveRope, Order, RowRange, indices, order_of

DIMS = {"n_head": 4, "n_head_kv": 2, "moe_gate_up": 10}
HEADS = [(1, 2), (1, 24), (2, 6), (4, 16), (3, 128)]


@pytest.mark.parametrize(("n_head", "head_dim"), HEADS)
def test_each_row_comes_from_where_llama_cpp_wants_it(n_head: int, head_dim: int) -> None:
    found = indices(InterleaveRope(n_head), n_head * head_dim).tolist()
    # Within a head, row 2i is row i of the first half, row 2i + 1 row i of the second.
    assert found == [
        head * head_dim + half * (head_dim // 2) + i
        for head in range(n_head)
        for i in range(head_dim // 2)
        for half in (0, 1)
    ]


@pytest.mark.parametrize("order", [IDENTITY, InterleaveRope(1), InterleaveRope(3), InterleaveRope(8)])
def test_an_order_is_a_permutation(order: Order) -> None:
    assert sorted(indices(order, 48).tolist()) == list(range(48))


@pytest.mark.parametrize(("n_head", "head_dim"), HEADS)
def test_rotating_neighbours_in_gguf_order_is_rotating_halves_in_transformers(n_head: int, head_dim: int) -> None:
    rows = np.random.default_rng(0).standard_normal(n_head * head_dim)
    order = indices(InterleaveRope(n_head), len(rows))
    halves = np.concatenate([_rotate_halves(head) for head in np.split(rows, n_head)])
    neighbours = np.concatenate([_rotate_neighbours(head) for head in np.split(rows[order], n_head)])
    np.testing.assert_allclose(neighbours, halves[order], rtol=0, atol=1e-12)


def test_gate_and_up_are_the_two_halves_of_their_rows() -> None:
    architecture = architecture_named("qwen3moe")
    assert architecture
    gate, up = architecture.places("model.layers.0.mlp.experts.gate_up_proj")
    assert indices(order_of(gate, DIMS), 10).tolist() == [0, 1, 2, 3, 4]
    assert indices(order_of(up, DIMS), 10).tolist() == [5, 6, 7, 8, 9]


def _rotate_halves(head: np.ndarray) -> np.ndarray:
    """apply_rotary_pos_emb of transformers: x * cos + rotate_half(x) * sin."""
    first, second = np.split(head, 2)
    angles = _angles(len(first))
    cos, sin = np.cos(np.tile(angles, 2)), np.sin(np.tile(angles, 2))
    result: np.ndarray = head * cos + np.concatenate([-second, first]) * sin
    return result


def _rotate_neighbours(head: np.ndarray) -> np.ndarray:
    """GGML_ROPE_TYPE_NORMAL: elements 2i and 2i + 1 are a point, turned by the i-th angle."""
    points = (head[0::2] + 1j * head[1::2]) * np.exp(1j * _angles(len(head) // 2))
    return np.stack([points.real, points.imag], axis=1).reshape(-1)


def _angles(n: int) -> np.ndarray:
    return np.array([3 * math.pow(10000, -i / n) for i in range(n)])


@pytest.mark.parametrize(
    ("architecture", "module", "expected"),
    [
        ("llama", "self_attn.q_proj", InterleaveRope(4)),
        ("llama", "self_attn.k_proj", InterleaveRope(2)),
        ("llama", "self_attn.v_proj", IDENTITY),
        ("llama", "self_attn.o_proj", IDENTITY),
        ("gemma3", "self_attn.q_proj", IDENTITY),
        ("qwen2", "self_attn.k_proj", IDENTITY),
        ("qwen3", "self_attn.q_proj", IDENTITY),
        ("phi3", "self_attn.qkv_proj", IDENTITY),
        ("qwen3moe", "mlp.experts.gate_up_proj", RowRange(0, 5)),
        ("qwen3moe", "mlp.experts.down_proj", IDENTITY),
        ("qwen3moe", "mlp.experts.2.up_proj", IDENTITY),
    ],
)
def test_which_modules_are_reordered(architecture: str, module: str, expected: Order) -> None:
    found = architecture_named(architecture)
    assert found
    place = found.place(f"model.layers.5.{module}")
    assert place
    assert order_of(place, DIMS) == expected
