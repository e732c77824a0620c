"""What every command prints as JSON, however it ends: one object in one line, whose first fields are the same for all.

docs/json.md has the schemas. ``version`` changes only with a change that breaks readers, not with a field more.
"""

from typing import Final

from converter.version import __version__

VERSION: Final = 1


def envelope(tool: str, status: int, **data: object) -> dict[str, object]:
    """The object of a command that came to its end: its fields behind the common ones."""
    return {"version": VERSION, "tool": tool, "tool_version": __version__, "status": status, "error": None, **data}
