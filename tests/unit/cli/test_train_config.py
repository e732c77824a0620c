"""--config: the file's values reach the command, the command line wins, and what can't be meant is refused."""

from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args, get_type_hints

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from converter.cli.command import Command
from converter.cli.train_config import config_option
from converter.training.settings import TrainingSettings, settings_toml

NEEDED = 'base = "b"\ndata = "d"\noutput = "o"\n'


def _kind(hint: Any) -> Any:
    """Of an option for a field of this type; None is what is not given."""
    hint = (
        next((one for one in get_args(hint) if one is not type(None)), hint) if type(None) in get_args(hint) else hint
    )
    if get_args(hint):
        return click.Choice(get_args(hint))
    return {Path: click.Path(path_type=Path), int: click.IntRange(0)}.get(hint, hint)


def _options(command: Callable[..., None]) -> Callable[..., None]:
    hints = get_type_hints(TrainingSettings)
    for field in fields(TrainingSettings):
        name, kind = field.name.replace("_", "-"), _kind(hints[field.name])
        spelled = f"--{name}/--no-{name}" if kind is bool else f"--{name}"
        given = {"required": True} if field.default is MISSING else {"default": field.default}
        command = click.option(spelled, field.name, type=kind, **given)(command)
    return command


@click.command("train", cls=Command)
@_options
@config_option
def main(**options: Any) -> None:
    click.echo(repr(TrainingSettings(**options)))


def run(text: str | bytes, *arguments: str) -> Result:
    """The command with this file as its config, given last."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "t.toml")
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        call = [*arguments, "--config", str(path)]
        return CliRunner().invoke(main, call, prog_name="train", catch_exceptions=False)


def settings_of(text: str | bytes, *arguments: str) -> str:
    result = run(text, *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.rstrip("\n")


def line_of(text: str | bytes, *arguments: str) -> str:
    result = run(text, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    where, found, line = result.stderr.rstrip("\n").partition("t.toml: ")
    assert where.startswith("train: ")
    assert found
    return line


ALL = TrainingSettings(
    base=Path("a/b"),
    data='hub/"x"',
    output=Path("c"),
    head="lora",
    target="untie-lora",
    r=3,
    lora_alpha=5.5,
    lora_dropout=0.0,
    use_rslora=True,
    bias="all",
    lora_bias=True,
    save_embedding_layers=True,
    eval_data="é\\",
    eval_split=0.5,
    loss="all",
    max_length=7,
    overlong="drop",
    packing=True,
    chat_template=Path("t.jinja"),
    general_text=Path("g.txt"),
    learning_rate=1e-5,
    num_train_epochs=1,
    max_steps=9,
    batch_size=2,
    per_device_train_batch_size=1,
    lr_scheduler_type="linear",
    warmup_ratio=0.5,
    weight_decay=0.5,
    max_grad_norm=0.5,
    seed=8,
    dtype="bfloat16",
    bf16=True,
    gradient_checkpointing=True,
    logging_steps=2,
    eval_steps=2,
    save_steps=2,
    early_stopping_patience=2,
    resume=True,
)


def test_every_setting_comes_back_from_the_file_that_a_run_leaves() -> None:
    plain = TrainingSettings(Path("a"), "d", Path("o"))
    for field in fields(TrainingSettings):
        assert getattr(ALL, field.name) != getattr(plain, field.name), "each must differ, to show that it was read"
    assert settings_of(settings_toml(ALL)) == repr(ALL).replace("num_train_epochs=1,", "num_train_epochs=1.0,")


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults() -> None:
    found = settings_of(
        NEEDED + 'r = 64\npacking = true\nresume = true\nseed = 3\nhead = "lora"', "--r=8", "--no-packing"
    )
    for part in ("r=8,", "packing=False", "resume=True", "seed=3", "head='lora'", "lora_alpha=32.0"):
        assert part in found


def test_what_is_required_may_come_from_either() -> None:
    assert "base=PosixPath('x')" in settings_of('data = "d"', "--base=x", "--output=o").replace("Windows", "Posix")
    missing = run('data = "d"', "--output=o")
    assert missing.exit_code == 2
    assert "--base" in missing.stderr


@pytest.mark.parametrize("text", [b"\xef\xbb\xbf" + NEEDED.encode(), NEEDED.replace("\n", "\r\n").encode()])
def test_files_of_windows_editors(text: bytes) -> None:
    assert "data='d'" in settings_of(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("lora_alhpa = 1", "lora_alhpa: no such option; did you mean lora_alpha?"),
        ("learning-rate = 1", "learning-rate: no such option; did you mean learning_rate?"),
        ("config = 'x'", "config: no such option"),
        ("help = true", "help: no such option"),
        ("zzz = 1", "zzz: no such option"),
        ("[lora]\nr = 1", "lora: no such option"),
        ("[r]\nx = 1", "r: found a table, wanted an integer"),
        ('r = "8"', "r: found a string, wanted an integer"),
        ("r = 8.0", "r: found a float, wanted an integer"),
        ("r = true", "r: found true or false, wanted an integer"),
        ("r = [8]", "r: found an array, wanted an integer"),
        ("r = 2026-01-01", "r: found a date or a time, wanted an integer"),
        ("r = -1", "r: -1 is not in the range x>=0"),
        (f"lora_alpha = 1{'0' * 400}", "lora_alpha: is larger than any float"),
        ('learning_rate = "1e-4"', "learning_rate: found a string, wanted a float or an integer"),
        ("packing = 1", "packing: found an integer, wanted true or false"),
        ('packing = "yes"', "packing: found a string, wanted true or false"),
        ("base = 1", "base: found an integer, wanted a string"),
        ("head = true", "head: found true or false, wanted a string"),
        ('head = "lm"', "head: 'lm' is not one of 'none', 'lora', 'full', 'tied'"),
    ],
)
def test_what_can_not_be_meant(text: str, line: str) -> None:
    assert line_of(text).startswith(line)


def test_a_file_is_judged_even_where_the_command_line_wins() -> None:
    assert line_of('r = "8"', "--r=8") == "r: found a string, wanted an integer"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("r = 1\nr = 2\n", "not TOML: Cannot overwrite a value (at line 2, column 6)"),
        ("r = 1\n\nseed 3\n", "not TOML: Expected '=' after a key in a key/value pair (at line 3, column 6)"),
        (b"r = 1\ndata = '\xff'", "not UTF-8 (at line 2)"),
        ("a = " + "[" * 20_000, "not TOML: "),
        ("r = " + "9" * 5000, "not TOML: "),
    ],
)
def test_what_is_no_toml(text: str | bytes, reason: str) -> None:
    assert line_of(text).startswith(reason)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("none.toml", "can't be read: No such file or directory"),
        (".", "is a directory, wanted a file"),
        ("/dev/zero", "is a device, wanted a file"),
    ],
)
def test_what_can_not_be_read(path: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["--config", path], prog_name="train")
    assert (result.exit_code, result.stderr) == (2, f"train: {path}: {reason}\n")


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    assert run(text, "--base=b", "--data=d", "--output=o").exit_code in {0, 2}


def test_relative_paths_are_those_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the current directory, not from the file's."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/t.toml").write_text(NEEDED, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["--config", "configs/t.toml"])
    assert "base=PosixPath('b')" in result.stdout.replace("Windows", "Posix")
