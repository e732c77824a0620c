"""How every command ends: fine, or with one clear line and the exit status that says of which kind the end is."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final

import click

from converter.errors import COULD_NOT, ConverterError
from converter.report.printable import printable

INTERRUPTED: Final = 128 + signal.SIGINT
# Where it is set, an error of our own is shown whole.
_TRACEBACK: Final = "ADAPTER_TO_GGUF_TRACEBACK"


class Command(click.Command):
    """A command whose every end is one of ours. click's own statuses for Ctrl-C and for a closed pipe are 1."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run, and leave by sys.exit."""
        if not gc.isenabled():  # cli/__init__.py turned it off; another command in this process finds it on
            gc.freeze()
            gc.enable()
        run: Any = super().main
        with one_clear_line(self.name or ""):
            status = run(*arguments, **{**options, "standalone_mode": False})
            sys.stdout.flush()
        sys.exit(status if isinstance(status, int) else 0)


@contextmanager
def one_clear_line(command: str) -> Iterator[None]:
    """Print what went wrong as one line and exit with its status; a SIGTERM unwinds like Ctrl-C, leaving no file.

    An exception that nobody foresaw has status 2: 1 would mean that the adapter was judged.
    """
    signal.signal(signal.SIGTERM, _unwind)
    try:
        yield
    except ConverterError as error:
        _end(f"{command}: {error}", error.status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _end(f"{command}: interrupted", INTERRUPTED)
    except Exception as error:  # noqa: BLE001  the outermost place: what nobody foresaw ends here
        _end(f"{command}: {unforeseen(error)}", COULD_NOT)


def unforeseen(error: Exception) -> str:
    """What is said of an exception that nobody foresaw: what the system refuses, no memory, or an error of ours."""
    match error:
        case OSError():
            return _of_system(error)
        case MemoryError():
            return "there is not enough memory for this"
    shows = os.environ.get(_TRACEBACK)
    if shows:
        import traceback

        traceback.print_exception(error)
    hint = "" if shows else f" with what {_TRACEBACK}=1 shows"
    return f"{type(error).__name__}: {_start(error)}: an error of ours; please report it{hint}"


def _of_system(error: OSError) -> str:
    """What the system says, of which file; without one it is the output, as on a full disk or into a closed pipe."""
    what = error.strerror or str(error)
    return f"{_start(error.filename)}: {what}" if error.filename else f"can't be printed or read: {what}"


def _start(words: object) -> str:
    text = " ".join(str(words).split())
    return text if len(text) <= 200 else f"{text[:200]}..."


def _end(line: str, status: int) -> None:
    # Where nothing can be printed any more, the interpreter would fail once more at its end, with status 120.
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
            continue
        _silence(stream)
    with suppress(OSError, ValueError):
        click.echo(printable(line), err=True)
    sys.exit(status)


def _silence(stream: Any) -> None:
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _unwind(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
