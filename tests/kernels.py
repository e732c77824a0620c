"""The compiled kernels that this machine can run."""

import pytest

from converter.evaluation.native import Kernels, kernels, of_level

_LEVELS = (1, 3, 4)


def levels() -> list[Kernels]:
    """Of each level of the processor up to this one's; none where the package was built without a compiler."""
    found = kernels()
    return [of_level(level) for level in _LEVELS if level <= found.level] if found else []


def require() -> Kernels:
    found = kernels()
    if found is None:
        pytest.skip("no kernels: there was no C++ compiler when the package was built")
    return found
