"""What a host that widens the model (planning/rehost/wide.py) asks of the head's numbers, and the answer."""

from dataclasses import dataclass

from converter.sources import Delta, Given, Merged, Rows


@dataclass(frozen=True, slots=True)
class HeadQuestion:
    """What has to be measured of the planned tensors before a wide model can be planned."""

    embedding: Merged | Rows
    n_vocab: int
    norm: Merged | Rows
    head: tuple[Delta, ...]
    factor: float  # of the embedding in token_embd
    gain: float


@dataclass(frozen=True, slots=True)
class HeadBasis:
    """V^T, U S diag(g) and g; of token_embd's rows (E scaled): mean |E|^2, largest |E|^2, largest 2 |E|^2 + |b|^2."""

    basis: Given
    mixing: Given
    gains: tuple[float, ...]
    mean_norm2: float
    largest_norm2: float
    largest_sum: float
