"""What the tensor proof found: a line for each tensor of a file."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class TensorCheck:
    """What was found of one tensor. ``type`` is None for a tensor that is not there, ``touched`` by the adapter.

    ``error`` is the largest error over the allowed one; None where the type has no bound. ``kept`` is the share of
    the delta D that is there, <stored - base, D> / ||D||^2; None where there is no delta.
    """

    tensor: str
    by: Literal["numbers", "bytes", "nothing"]
    type: str | None = None
    touched: bool = False
    error: float | None = None
    kept: float | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class TensorProof:
    """Every tensor of a file, in the model's order; those in excess last."""

    checks: tuple[TensorCheck, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong, a line each; empty where all is proven."""
        return tuple(f"{check.tensor} {check.fault}" for check in self.checks if check.fault)

    def n_by(self, by: Literal["numbers", "bytes", "nothing"]) -> int:
        """How many tensors were compared by numbers, by bytes, or not at all."""
        return sum(check.by == by for check in self.checks)

    @property
    def error(self) -> float:
        """The largest error of any tensor, over the one allowed."""
        return max((check.error for check in self.checks if check.error is not None), default=0.0)

    @property
    def kept(self) -> tuple[float, float] | None:
        """The least and the largest share that a tensor holds of its delta."""
        shares = [check.kept for check in self.checks if check.kept is not None]
        return (min(shares), max(shares)) if shares else None
