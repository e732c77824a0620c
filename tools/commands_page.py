"""docs/commands.md, from the options that click knows: every command that pyproject.toml installs."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Final

import click

_ROOT: Final = Path(__file__).parent.parent
PAGE: Final = _ROOT / "docs" / "commands.md"
_HEAD: Final = """# Commands

Generated from the commands' own options: `UPDATE_GOLDEN=1 pytest tests/golden` writes it. `COMMAND --help` prints the
same. What the [exit statuses](exit-statuses.md) mean is the same for all.

"""


def page() -> str:
    """The page of every command, its arguments and its options."""
    return _HEAD + "\n".join(_section(name, command) for name, command in commands().items())


def commands() -> Mapping[str, click.Command]:
    """The commands by the names under which they are installed."""
    scripts = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    return {name: _command(place) for name, place in scripts.items()}


def _command(place: str) -> click.Command:
    module, name = place.split(":")
    command = getattr(import_module(module), name)
    assert isinstance(command, click.Command)
    return command


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    usage = command.get_usage(context).removeprefix("Usage: ")
    paragraphs = [" ".join(text.split()) for text in (command.help or "").split("\n\n")]
    rows = "\n".join(_rows(command, context))
    help_ = "\n\n".join(map(_escaped, paragraphs))
    return f"## {name}\n\n```console\n{usage}\n```\n\n{help_}\n\n| option | meaning |\n|---|---|\n{rows}\n"


def _rows(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record:
            option, meaning = record
            shown = option.replace("|", r"\|")
            yield f"| `{shown}` | {_escaped(' '.join(meaning.split()))} |"


def _escaped(text: str) -> str:
    """Text of a terminal as Markdown shows it."""
    escaped = re.sub(r"[\\`*<|]|(?<!\w)_", r"\\\g<0>", text)
    return re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", escaped)
