"""``--config FILE``: a TOML file that gives a command's options by their names, with underscores.

The command line wins over the file, the file over the defaults, and what is required may come from either. A value
means what it means on the command line: a relative path is taken from the current directory, not from the file's, so
that the train.toml a run leaves beside its adapter runs it again from where it was started. https://toml.io/en/v1.0.0
"""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from converter.cli.options import PATH
from converter.errors import ConverterError
from converter.read.files import read_text
from converter.read.limits import SETTINGS_NBYTES

_NAMES: Final[Mapping[type, str]] = {
    bool: "true or false",
    int: "an integer",
    float: "a float",
    str: "a string",
    list: "an array",
    dict: "a table",
}  # whatever else TOML has is a date or a time


def _read_config(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    context.default_map = {**(context.default_map or {}), **_values(path, context)}


config_option: Final = click.option(
    "--config",
    metavar="FILE",
    type=PATH,
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="TOML file of options, their names with underscores. The command line wins over it.",
)


def _values(path: Path, context: click.Context) -> dict[str, Any]:
    """The file's values, each fit for its option. Raises ConverterError."""
    options = {option.name: option for option in context.command.params if option.name and option.expose_value}
    values = _parsed(path)
    for key, value in values.items():
        if key not in options:
            near = difflib.get_close_matches(key, options, n=1)
            raise ConverterError(f"{path}: {key}: no such option{f'; did you mean {near[0]}?' if near else ''}")
        _judge(f"{path}: {key}", value, options[key], context)
    return values


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path, SETTINGS_NBYTES))
    except (ValueError, RecursionError) as error:
        raise ConverterError(f"{path}: not TOML: {error}") from error


def _judge(where: str, value: object, option: click.Parameter, context: click.Context) -> None:
    """Raise ConverterError unless the value is of the option's type, and one that the option takes."""
    kinds = _kinds(option)
    if type(value) not in kinds:
        found = _NAMES.get(type(value), "a date or a time")
        raise ConverterError(f"{where}: found {found}, wanted {' or '.join(_NAMES[kind] for kind in kinds)}")
    try:
        option.type_cast_value(context, value)
    except click.BadParameter as error:
        raise ConverterError(f"{where}: {error.message.rstrip('.')}") from error
    except OverflowError as error:  # a whole number in a float's place
        raise ConverterError(f"{where}: is larger than any float") from error


def _kinds(option: click.Parameter) -> tuple[type, ...]:
    """Click would take "8" for a number and 1 for a name; in TOML the types tell mistakes."""
    match option.type:
        case click.types.BoolParamType():
            return (bool,)
        case click.types.IntParamType():
            return (int,)
        case click.types.FloatParamType():
            return (float, int)
        case _:
            return (str,)
