"""The version of this tool, which outputs record."""

__version__ = "0.1.0"  # hatchling reads this line, and takes no annotation
