"""Orders against independent formulas, and against what they are for: the rotary embedding."""

import math

import numpy as np
import pytest

from converter.architectures import architecture_named
from converter.orders import Order, order
from converter.values.orders import indices

DIMS = {"n_head": 4, "n_head_kv": 2, "q": 32, "kv": 16, "moe_gate_up": 10}
HEADS = [(1, 2), (1, 24), (2, 6), (4, 16), (3, 128)]


def _interleaved(n_head: int, n_rows: int) -> Order:
    return order("n_head 2 _ -> n_head _ 2", n_rows, {"n_head": n_head})


@pytest.mark.parametrize(("n_head", "head_dim"), HEADS)
def test_each_row_comes_from_where_llama_cpp_wants_it(n_head: int, head_dim: int) -> None:
    found = indices(_interleaved(n_head, n_head * head_dim), n_head * head_dim).tolist()
    # Within a head, row 2i is row i of the first half, row 2i + 1 row i of the second.
    assert found == [
        head * head_dim + half * (head_dim // 2) + i
        for head in range(n_head)
        for i in range(head_dim // 2)
        for half in (0, 1)
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("2 _ -> 2=0 _", [0, 1, 2, 3]),  # the gate of gate and up
        ("2 _ -> 2=1 _", [4, 5, 6, 7]),
        ("_ 2 -> _ 2=1", [1, 3, 5, 7]),  # the up of gate and up that alternate
        ("2 _ -> _ 2", [0, 4, 1, 5, 2, 6, 3, 7]),
        ("keys | 2 3 -> 3 2", [0, 1, 2, 5, 3, 6, 4, 7]),  # the first ones stay where they are
        ("keys | _ -> _", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("2 4 -> 4=0 2 & 2 4=1:", [0, 4, 1, 2, 3, 5, 6, 7]),  # what is first in each, then of each what is left
        ("2 4 -> 2 4=1:keys", [1, 5]),
        ("2 4 -> 2 4=:keys", [0, 1, 4, 5]),
    ],
)
def test_what_a_table_writes(text: str, wanted: list[int]) -> None:
    assert indices(order(text, 8, {"keys": 2}), 8).tolist() == wanted


@pytest.mark.parametrize(
    "text", ["3 _ -> _ 3", "2 3 -> 3 2", "2 2 2 -> 2", "2 _ -> _", "2 4 -> 4 3", "keys | 2 5", "x"]
)
def test_what_does_not_fit_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"order|invalid"):
        order(text, 8, {"keys": 2})


@pytest.mark.parametrize(("n_head", "head_dim"), HEADS)
def test_rotating_neighbours_in_gguf_order_is_rotating_halves_in_transformers(n_head: int, head_dim: int) -> None:
    rows = np.random.default_rng(0).standard_normal(n_head * head_dim)
    order = indices(_interleaved(n_head, len(rows)), len(rows))
    halves = np.concatenate([_rotate_halves(head) for head in np.split(rows, n_head)])
    neighbours = np.concatenate([_rotate_neighbours(head) for head in np.split(rows[order], n_head)])
    np.testing.assert_allclose(neighbours, halves[order], rtol=0, atol=1e-12)


def test_gate_and_up_are_the_two_halves_of_their_rows() -> None:
    architecture = architecture_named("qwen3moe")
    assert architecture
    gate, up = architecture.places("model.layers.0.mlp.experts.gate_up_proj")
    assert indices(gate.orders(DIMS).rows, 10).tolist() == [0, 1, 2, 3, 4]
    assert indices(up.orders(DIMS).rows, 10).tolist() == [5, 6, 7, 8, 9]


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
        ("llama", "self_attn.q_proj", "4 2 _ -> 4 _ 2"),
        ("llama", "self_attn.k_proj", "2 2 _ -> 2 _ 2"),
        ("llama", "self_attn.v_proj", ""),
        ("llama", "self_attn.o_proj", ""),
        ("gemma3", "self_attn.q_proj", ""),
        ("qwen2", "self_attn.k_proj", ""),
        ("qwen3", "self_attn.q_proj", ""),
        ("phi3", "self_attn.qkv_proj", ""),
        ("qwen3moe", "mlp.experts.gate_up_proj", "2 _ -> 2=0 _"),
        ("qwen3moe", "mlp.experts.down_proj", ""),
        ("qwen3moe", "mlp.experts.2.up_proj", ""),
    ],
)
def test_which_modules_are_reordered(architecture: str, module: str, expected: str) -> None:
    found = architecture_named(architecture)
    assert found
    place = found.place(f"model.layers.5.{module}")
    assert place
    assert place.orders(DIMS).rows.text == expected
    assert not place.orders(DIMS).columns.text
