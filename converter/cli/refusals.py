"""How a command shows why the gate is closed: the report of adapter-check, before the one line that ends the run."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from converter.cli.width import report_width


@contextmanager
def refusals_shown(style: str) -> Iterator[None]:
    """Print the report of a refusal on stderr, and let the refusal pass. As JSON it is part of what ends the run."""
    from converter.conversion import Refused

    try:
        yield
    except Refused as refused:
        if style != "json":
            from converter.report.text import text_report

            click.echo(text_report(refused.report, report_width(), strict=False) + "\n", err=True)
        raise
