"""What every command prints as JSON, however it ends: one object in one line, whose first fields are the same for all.

docs/json.md has the schemas. ``version`` changes only with a change that breaks readers, not with a field more.
"""

from typing import Any, Final

from converter.errors import ConverterError
from converter.version import __version__

VERSION: Final = 1


def envelope(tool: str, status: int, **data: object) -> dict[str, object]:
    """The object of a command that came to its end: its fields behind the common ones."""
    return {"version": VERSION, "tool": tool, "tool_version": __version__, "status": status, "error": None, **data}


def failed(tool: str, status: int, message: str, remedy: str | None, cause: BaseException) -> dict[str, object]:
    """The object of a command that ended early: what is wrong and what to do, and of a refusal the judgement."""
    report: Any = getattr(cause, "report", None)
    judgement = {}
    if isinstance(cause, ConverterError) and report is not None:
        from converter.report.formats.json import report_data

        judgement = {"judgement": report_data(report, strict=False)}
    return {**envelope(tool, status), "error": {"message": message, "remedy": remedy}, **judgement}
