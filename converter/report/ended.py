"""What a command that ended early prints as JSON: docs/ended.schema.json."""

from typing import Any

from converter.errors import ConverterError
from converter.report.envelope import envelope
from converter.report.formats.json import report_data


def ended(tool: str, status: int, message: str, remedy: str | None, cause: BaseException) -> dict[str, object]:
    """What is wrong and what to do, and of a refusal the judgement."""
    report: Any = getattr(cause, "report", None)
    is_refusal = isinstance(cause, ConverterError) and report is not None
    judgement = {"judgement": report_data(report, strict=False)} if is_refusal else {}
    return {**envelope(tool, status), "error": {"message": message, "remedy": remedy}, **judgement}
