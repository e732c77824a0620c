"""The reports of a run for people, in a file."""

import click

from converter.report.outcomes import Run, Unread
from converter.report.printable import printable
from converter.report.several import Several
from converter.report.text import text_report


def render(run: Run) -> str:
    """The text of a run without colours, with the reason of each path that could not be judged among it."""
    if len(run.outcomes) == 1 and not isinstance(outcome := run.outcomes[0], Unread):
        parts = [text_report(outcome, run.width, strict=run.strict)]
    else:
        several = Several(run.width, strict=run.strict)
        parts = [several.text(outcome) for outcome in run.outcomes]
        parts.append(several.end())
    return click.unstyle("\n".join((*parts, *map(printable, map(str, run.idle_waivers))))) + "\n"
