"""How every command ends: fine, or with one clear line and the exit status that says of which kind the end is."""

import gc
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from itertools import pairwise
from types import FrameType
from typing import Any, Final, NamedTuple

import click

from converter.errors import COULD_NOT, ConverterError
from converter.report.printable import json_line, printable

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
        _escape_what_a_console_lacks()
        run: Any = super().main
        given = arguments[0] if arguments else options.get("args")
        with one_clear_line(self.name or "", as_json=_asks_json(sys.argv[1:] if given is None else given)):
            status = run(*arguments, **{**options, "standalone_mode": False})
            sys.stdout.flush()
        sys.exit(status if isinstance(status, int) else 0)


def _escape_what_a_console_lacks() -> None:
    """A cp1252 console or a lone surrogate in a name must not end the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _asks_json(arguments: Sequence[str]) -> bool:
    """Whether JSON is to be printed; the arguments may be such that click refuses them."""
    return "--format=json" in arguments or ("--format", "json") in pairwise(arguments)


@contextmanager
def one_clear_line(command: str, *, as_json: bool = False) -> Iterator[None]:
    """Print what went wrong as one line and exit with its status; a SIGTERM unwinds like Ctrl-C, leaving no file.

    An exception that nobody foresaw has status 2: 1 would mean that the adapter was judged. Where JSON was asked for,
    stdout has it, too.
    """
    signal.signal(signal.SIGTERM, _unwind)
    try:
        yield
    except ConverterError as error:
        end = _End(str(error), error.status, None, error)
    except click.ClickException as error:
        error.show()
        end = _End(error.format_message(), error.exit_code, f"{command} --help has the options", error, shown=True)
    except (click.Abort, KeyboardInterrupt) as error:
        end = _End("interrupted", INTERRUPTED, None, error)
    except Exception as error:  # noqa: BLE001  the outermost place: what nobody foresaw ends here
        end = _End(unforeseen(error), COULD_NOT, None, error)
    else:
        return
    _leave(command, end, as_json=as_json)


class _End(NamedTuple):
    """How a command ended early; shown: click has said it."""

    message: str
    status: int
    remedy: str | None
    cause: BaseException
    shown: bool = False


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


def _leave(command: str, end: _End, *, as_json: bool) -> None:
    if as_json:
        from converter.report.ended import ended

        with suppress(OSError, ValueError):
            click.echo(json_line(ended(command, end.status, end.message, end.remedy, end.cause)))
    # Where nothing can be printed any more, the interpreter would fail once more at its end, with status 120.
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
            continue
        _silence(stream)
    with suppress(OSError, ValueError):
        if not end.shown:
            click.echo(printable(f"{command}: {end.message}"), err=True)
    sys.exit(end.status)


def _silence(stream: Any) -> None:
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _unwind(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
