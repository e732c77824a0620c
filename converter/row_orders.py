"""Orders of output rows: row i of the GGUF weight is row ``indices(order, n)[i]`` of the Hugging Face weight.

Rows of B @ A are gathered by gathering rows of B alone: one order serves weight, bias and lora_B; lora_A never moves.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from converter.architectures import Place

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Identity:
    """Rows stay where they are."""


@dataclass(frozen=True, slots=True)
class InterleaveRope:
    """Within each head, the two halves are interleaved: i, i + d/2, i + 1, ... (llama.cpp's LlamaModel.permute).

    transformers rotates the first half of a head against the second; llama.cpp's llama graph rotates neighbours.
    """

    n_head: int


@dataclass(frozen=True, slots=True)
class RowRange:
    """Only these rows: one half of the gate and up rows that fused experts keep in one parameter."""

    begin: int
    n_rows: int


Order = Identity | InterleaveRope | RowRange
IDENTITY: Final = Identity()


def order_of(place: Place, dims: "Mapping[str, int]") -> Order:
    """The order in which GGUF keeps the output rows of a module."""
    if place.row_order == "interleave_rope" and place.heads:
        return InterleaveRope(dims[place.heads])
    if place.row_order in {"first_half", "second_half"}:
        half = dims[place.shape[-2]] // 2
        return RowRange(half if place.row_order == "second_half" else 0, half)
    return IDENTITY


def indices(order: Order, n_rows: int) -> "npt.NDArray[np.int64]":
    """The Hugging Face row behind each GGUF row, of the ``n_rows`` that the Hugging Face weight has."""
    import numpy as np

    rows = np.arange(n_rows)
    match order:
        case Identity():
            return rows
        case InterleaveRope(n_head):
            return rows.reshape(n_head, 2, -1).swapaxes(1, 2).reshape(-1)
        case RowRange(begin, n):
            return rows[begin : begin + n]
