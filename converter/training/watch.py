"""Who looks on while a run trains: a terminal, a sweep that may end it, nobody."""

from collections.abc import Mapping
from typing import Protocol


class Watch(Protocol):
    """What a run tells, and what it asks: whether to go on after an evaluation."""

    def begins(self, n_steps: int) -> None: ...

    def logged(self, step: int, values: Mapping[str, float]) -> None: ...

    def says(self, line: str) -> None: ...

    def stops(self, step: int, eval_loss: float) -> bool: ...


class Stopped(Exception):
    """A watch ended the run after an evaluation; no adapter was saved."""

    def __init__(self, step: int, eval_loss: float) -> None:
        super().__init__(f"stopped after step {step}, at an eval_loss of {eval_loss:.4g}")
        self.step = step
        self.eval_loss = eval_loss


class Unwatched:
    """Looks on in silence."""

    def begins(self, n_steps: int) -> None: ...

    def logged(self, step: int, values: Mapping[str, float]) -> None: ...

    def says(self, line: str) -> None: ...

    def stops(self, step: int, eval_loss: float) -> bool:  # noqa: ARG002  the protocol's
        return False
