"""The version of this tool, which outputs record."""

from typing import Final

__version__: Final = "0.1.0"
