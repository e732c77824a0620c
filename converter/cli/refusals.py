"""How a command shows why the gate is closed: the report of adapter-check, before the one line that ends the run."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from converter.cli.width import report_width


@contextmanager
def refusals_shown(style: str) -> Iterator[None]:
    """Print the report of a refusal, as text on stderr or as JSON on stdout, and let the refusal pass."""
    from converter.conversion import Refused

    try:
        yield
    except Refused as refused:
        from converter.report.formats import rendered
        from converter.report.outcomes import Run
        from converter.report.text import text_report

        if style == "json":
            click.echo(rendered("json", Run((refused.report,))), nl=False)
        else:
            click.echo(text_report(refused.report, report_width(), strict=False) + "\n", err=True)
        raise
