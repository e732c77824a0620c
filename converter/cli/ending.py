"""How every command ends: one clear line for what a user can cause, and its exit status."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from converter.errors import COULD_NOT, ConverterError


@contextmanager
def one_clear_line(command: str) -> Iterator[None]:
    """Print a ConverterError as one line and exit with its status; a SIGTERM unwinds like Ctrl-C, leaving no file."""
    signal.signal(signal.SIGTERM, _unwind)
    try:
        yield
    except ConverterError as error:
        click.echo(f"{command}: {error}", err=True)
        sys.exit(error.status)
    except PermissionError as error:
        # Even asking whether a path is there is forbidden where its directory is.
        click.echo(f"{command}: {error.filename}: {error.strerror}", err=True)
        sys.exit(COULD_NOT)


def _unwind(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
