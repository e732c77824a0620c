"""Paths that none can be, and links in a circle, wherever a command is given one: one line, status 2."""

from datetime import date, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from converter.cli import check, fleet, to_gguf, train, verify
from converter.cli.command import Command
from converter.derive.adapter import read_adapter
from converter.digests import adapter_digest
from converter.errors import COULD_NOT, FINE, JUDGED_BAD, ConverterError
from converter.training.data import read_data
from tests.rules.specimens import Specimen, head_lora, write_gguf

NUL = "a\0b"
CIRCLE = "Too many levels of symbolic links"
COMMANDS: tuple[Command, ...] = (check.main, fleet.main, to_gguf.main, train.main, verify.main)
PATHS = [
    pytest.param(command, field, id=f"{command.name} {field.name}")
    for command in COMMANDS
    for field in command.params
    if isinstance(field.type, click.Path)
]
IN_TOML = [field.name for field in train.main.params if isinstance(field.type, click.Path) and field.expose_value]


def run(command: click.Command, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], prog_name=command.name)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    it = Specimen(tmp_path / "adapter", None)
    it.write()
    return it.directory


@pytest.fixture
def circle(tmp_path: Path) -> Path:
    (tmp_path / "circle").symlink_to("circle")
    return tmp_path / "circle"


def test_the_paths_of_all_commands_are_tried() -> None:
    assert len(PATHS) > 25
    assert {"base", "output", "chat_template", "general_text"} == set(IN_TOML)


@pytest.mark.parametrize(("command", "field"), PATHS)
def test_a_nul_is_in_no_path(command: Command, field: click.Parameter) -> None:
    ran = run(command, *([field.opts[0]] if isinstance(field, click.Option) else []), NUL)
    assert ran.exit_code == COULD_NOT
    assert ran.stderr.splitlines()[-1].endswith(r"'a\x00b' is no path: it holds a NUL")


@pytest.mark.parametrize("name", IN_TOML)
def test_nor_of_a_file_of_settings(name: str, tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text(f'{name} = "a\\u0000b"\n', encoding="utf-8")
    ran = run(train.main, "--config", tmp_path / "train.toml")
    said = rf"adapter-train: {tmp_path}/train.toml: {name}: 'a\x00b' is no path: it holds a NUL"
    assert (ran.exit_code, ran.stderr) == (COULD_NOT, f"{said}\n")


def test_nor_is_it_the_name_of_samples() -> None:
    for data in ((NUL,), ("x", NUL)):
        with pytest.raises(ConverterError, match="not found; wanted a file"):
            read_data(*data)


@pytest.mark.parametrize("place", [r"a\u0000b", "circle", "circle/below"])
def test_a_waiver_may_name_any_path(place: str, tmp_path: Path, circle: Path) -> None:
    it, base = Specimen(tmp_path / "bad", None), write_gguf(tmp_path / "tied.gguf")
    it.tensors |= head_lora()
    it.write()
    for digest, said in (("0" * 64, "unused"), (adapter_digest(read_adapter(it.directory)), "used")):
        day = date.today() + timedelta(days=1)  # noqa: DTZ011  as the command has it
        waiver = f'adapter = "{digest}"\nreason = "known"\nexpires = {day}\npath = "{place}"\n'
        circle.with_name("policy.toml").write_text(f'[[waivers]]\ncode = "HD001"\n{waiver}', encoding="utf-8")
        ran = run(check.main, it.directory, "--base", base, "--config", tmp_path / "policy.toml", "--format", "json")
        assert ran.exit_code in (FINE, JUDGED_BAD), ran.output
        assert f'"state": "{said}"' in ran.stdout


def test_a_circle_is_not_said_to_hold_nothing(adapter: Path, circle: Path) -> None:
    for command, arguments in (
        (check.main, (circle,)),
        (check.main, (circle, "--no-config")),
        (check.main, (adapter, "--base", circle)),
        (check.main, (adapter, "--initial-adapter", circle)),
        (to_gguf.main, (circle, "-o", circle.with_name("out.gguf"))),
        (to_gguf.main, (adapter, "--base", circle, "-o", circle.with_name("out.gguf"))),
    ):
        ran = run(command, *arguments)
        assert ran.exit_code == COULD_NOT
        assert ran.stderr.endswith(f"{CIRCLE}\n"), ran.output
        assert ran.stderr.count("\n") == 1


def test_a_circle_beside_adapters_is_passed_over(adapter: Path, circle: Path) -> None:
    ran = run(check.main, circle.parent)
    assert (ran.exit_code, ran.stderr) == (FINE, "")
    assert f"{adapter}: fine for --to lora" in ran.stdout


def test_an_attestation_takes_the_place_of_a_circle(adapter: Path, circle: Path) -> None:
    ran = run(check.main, adapter, "--to", "lora", "--attest", circle)
    assert (ran.exit_code, ran.stderr) == (FINE, "")
    assert not circle.is_symlink()
    assert run(check.main, adapter, "--to", "lora", "--verify-attestation", circle).exit_code == FINE
