"""The reports of a run for people, one after the other, and a line that sums up several."""

from converter.report.outcomes import Run, Unread
from converter.report.printable import printable
from converter.report.text import text_report, text_summary


def render(run: Run) -> str:
    """The text of a run, with the reason of each path that could not be judged among it."""
    parts = [
        printable(f"{outcome.path}: {outcome.message}")
        if isinstance(outcome, Unread)
        else text_report(outcome, run.width, strict=run.strict) + "\n"
        for outcome in run.outcomes
    ]
    summary = [text_summary(run.statuses)] if len(run.outcomes) > 1 else []
    return "\n".join((*parts, *summary, *map(printable, map(str, run.idle_waivers)))) + "\n"
