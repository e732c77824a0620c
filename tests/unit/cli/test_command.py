"""How the commands end, whatever happens: one line, and never a status that means something else."""

import gc
import json
import os
import pty
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from converter.checking import check_adapter
from converter.cli import check, to_gguf, train, verify
from converter.derive.adapter import Adapter
from converter.derive.locate import hub_cache
from converter.diagnostics import Report
from fixtures.adapters import tiny_adapter
from fixtures.tiny import TinyModel

BASE = TinyModel("llama")
# Each command, its arguments, and a name in its module that is called early.
COMMANDS: dict[str, tuple[Any, list[str], str]] = {
    "adapter-check": (check, ["a"], "Deployment"),
    "adapter-to-gguf": (to_gguf, ["a"], "adapter_named"),
    "adapter-verify": (verify, ["a", "--base", "b"], "adapter_named"),
    "adapter-train": (train, ["--base", "b", "--data", "d", "--output", "o"], "TrainingSettings"),
}


def fails(name: str, error: BaseException | type[BaseException], monkeypatch: pytest.MonkeyPatch) -> Result:
    """A command in which something early raises this."""

    def raises(*_: object, **__: object) -> None:
        raise error

    module, arguments, early = COMMANDS[name]
    monkeypatch.setattr(module, early, raises)
    return CliRunner().invoke(module.main, arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_what_nobody_foresaw_is_no_judgement(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = fails(name, ZeroDivisionError("at\nsea"), monkeypatch)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{name}: ZeroDivisionError: at sea: an error of ours; please report it with what")
    assert result.stderr.count("\n") == 1


def test_an_error_of_ours_is_shown_whole_where_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTER_TO_GGUF_TRACEBACK", "1")
    result = fails("adapter-check", ZeroDivisionError("at sea"), monkeypatch)
    assert result.exit_code == 2
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.endswith("please report it\n")


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("at sea"), MemoryError(), OSError(5, "I/O error"), RecursionError()]
)
def test_what_nobody_foresaw_of_one_adapter_leaves_the_others_judged(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        shutil.copytree(tiny_adapter("plain", BASE), tmp_path / name)

    def fails_at_b(adapter: Adapter, *arguments: Any, **options: Any) -> Report:
        if adapter.path.name == "b":
            raise error
        return check_adapter(adapter, *arguments, **options)

    monkeypatch.setattr(check, "check_adapter", fails_at_b)
    result = CliRunner().invoke(check.main, [str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"adapter-check: {tmp_path / 'b'}: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout.count("fine for --to lora") == 2
    assert "3 looked at: 2 fine, 1 " in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_has_its_own_status(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = fails(name, KeyboardInterrupt, monkeypatch)
    assert (result.exit_code, result.stderr.lstrip()) == (130, f"{name}: interrupted\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_what_the_system_refuses_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = fails(name, OSError(36, "File name too long", "x" * 5000), monkeypatch)
    assert result.exit_code == 2
    assert result.stderr == f"{name}: {'x' * 200}...: File name too long\n"


def test_no_memory_is_no_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    result = fails("adapter-check", MemoryError, monkeypatch)
    assert (result.exit_code, result.stderr) == (2, "adapter-check: there is not enough memory for this\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_usage_error_is_status_2(name: str) -> None:
    result = CliRunner().invoke(COMMANDS[name][0].main, ["--no-such-option"])
    assert result.exit_code == 2
    assert "No such option" in result.stderr


def test_a_full_disk_behind_stdout_is_told() -> None:
    adapter = tiny_adapter("plain", BASE)
    for arguments in ([adapter], [adapter, "--format", "json"], ["--help"], ["--explain", "HD001"], ["--version"]):
        command = [sys.executable, "-m", "converter.cli.check", *map(str, arguments)]
        with Path("/dev/full").open("w") as full:
            ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert (ran.returncode, ran.stderr) == (2, "adapter-check: can't be printed or read: No space left on device\n")


def test_a_full_disk_behind_stderr_leaves_the_status() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "converter.cli.check", "/nowhere"]
        assert subprocess.run(command, stdout=full, stderr=full, check=False).returncode == 2


# --- Names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["base_model_name_or_path", "revision"])
@pytest.mark.parametrize("value", ["a" * 5000, "a/" * 2500 + "a", "o/" + "a" * 300, "a\0b", "\ud800"])
def test_a_name_that_no_file_can_have_is_of_no_file(field: str, value: str, tmp_path: Path) -> None:
    shutil.copytree(tiny_adapter("plain", BASE), tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": "org/name", field: value}
    path.write_text(json.dumps(config), encoding="utf-8")
    judged = CliRunner().invoke(check.main, [str(tmp_path / "adapter")])
    assert (judged.exit_code, judged.stderr) == (0, "")
    refused = CliRunner().invoke(to_gguf.main, [str(tmp_path / "adapter"), "-o", str(tmp_path / "x.gguf")])
    assert refused.exit_code == 2
    assert "is not on this machine; give it with --base" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("options", [["-o", "NAME"], ["--base", "NAME"], ["--initial-adapter", "NAME"]])
@pytest.mark.parametrize("name", ["a" * 300, "a" * 5000])
def test_an_option_that_no_file_can_have_as_its_name_is_refused(options: list[str], name: str, tmp_path: Path) -> None:
    given = [option.replace("NAME", str(tmp_path / name)) for option in options]
    base = [] if "--base" in options else ["--base", str(BASE.gguf)]
    result = CliRunner().invoke(to_gguf.main, [str(tiny_adapter("plain", BASE)), *base, *given])
    assert result.exit_code == 2
    assert result.stderr.startswith("adapter-to-gguf: ")
    assert result.stderr.count("\n") == 1


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> pwd.struct_passwd:
        raise KeyError

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert hub_cache({}) == Path("~/.cache/huggingface/hub")
    assert hub_cache({"HF_HOME": "~/x"}) == Path("~/x/hub")
    assert not os.path.lexists(hub_cache({}))


# --- Colours ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("setting", "has_colours"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_no_color_is_honoured(setting: dict[str, str], has_colours: bool, tmp_path: Path) -> None:
    """https://no-color.org: the progress bar on a terminal is all that is ever coloured."""
    master, terminal = pty.openpty()
    call = "from converter.cli.to_gguf import main; main()"
    arguments = (tiny_adapter("plain", BASE), "--base", BASE.gguf, "--to", "model", "-o", tmp_path / "x.gguf")
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | setting
    subprocess.run(
        [sys.executable, "-c", call, *map(str, arguments)],
        env=environment | {"TERM": "xterm-256color"},
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        check=True,
    )
    os.close(terminal)
    shown = os.read(master, 1 << 16)
    os.close(master)
    assert b"writing" in shown
    assert bool(re.search(rb"\x1b\[[\d;]*3[0-8][\d;]*m", shown)) is has_colours


def test_only_the_first_command_of_a_process_keeps_what_is_there_for_good() -> None:
    """What is frozen is never collected: services and tests that call a command again and again would grow."""
    CliRunner().invoke(check.main, ["--help"])
    kept = gc.get_freeze_count()
    circle: list[object] = []
    circle.append(circle)
    CliRunner().invoke(check.main, ["--help"])
    assert gc.get_freeze_count() <= kept
