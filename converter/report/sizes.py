"""Sizes for people."""

from typing import Final

_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def size_text(nbytes: float) -> str:
    """A size in decimal units, as ``ls -h --si`` shows it."""
    for unit in _UNITS[:-1]:
        if nbytes < 1000:
            return _rounded(nbytes, unit)
        nbytes /= 1000
    return _rounded(nbytes, _UNITS[-1])


def _rounded(amount: float, unit: str) -> str:
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
