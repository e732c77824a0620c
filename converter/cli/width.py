"""How wide a report is."""

import shutil
from typing import Final

_MAX_WIDTH: Final = 110  # longer lines are hard to read


def report_width() -> int:
    """The terminal's width, within what reads well."""
    return min(shutil.get_terminal_size().columns, _MAX_WIDTH)
