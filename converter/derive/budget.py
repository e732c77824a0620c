"""How much the patterns of an adapter may take together; apart from regex.py, which plain adapters don't need."""

from converter.read.limits import PATTERN_STEPS


class PatternError(Exception):
    """A pattern that is no regex, is not read here, or takes too long; the message says which."""


class Budget:
    """The steps that all patterns of one adapter have together."""

    __slots__ = ("left",)

    def __init__(self, steps: int = PATTERN_STEPS) -> None:
        self.left = steps

    def spend(self, n: int) -> None:
        """Take ``n`` steps. Raises PatternError where there are not so many."""
        self.left -= n
        if self.left < 0:
            raise PatternError("takes too long, with the other patterns, over all modules")
