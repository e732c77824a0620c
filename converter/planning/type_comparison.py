"""What each type of a quantised file keeps of an adapter, as data."""

from typing import NamedTuple


class TensorKept(NamedTuple):
    """The share that a tensor keeps of its delta in a type, and the rounding error's size beside the delta's."""

    tensor: str
    type: str
    share: float
    noise: float


class TypeCompared(NamedTuple):
    """A file type: the bytes of its tensors, and what is kept of the adapter, over all tensors and in each."""

    file_type: str
    nbytes: int
    kept: float
    noise: float
    tensors: tuple[TensorKept, ...]

    @property
    def least(self) -> TensorKept:
        """The tensor that keeps the smallest share."""
        return min(self.tensors, key=lambda tensor: tensor.share)
