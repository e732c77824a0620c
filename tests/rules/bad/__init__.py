"""One spoilt adapter, or several, for every rule."""

from tests.rules.bad import (
    bases,
    checkpoints,
    configs,
    containers,
    ends,
    incomplete,
    neighbours,
    policies,
    targets,
    tensors,
    tokens,
    wrong_bases,
)
from tests.rules.bad.registry import BAD, Spoil

__all__ = [
    "BAD",
    "Spoil",
    "bases",
    "checkpoints",
    "configs",
    "containers",
    "ends",
    "incomplete",
    "neighbours",
    "policies",
    "targets",
    "tensors",
    "tokens",
    "wrong_bases",
]
