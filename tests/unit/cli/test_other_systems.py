"""Windows and macOS, as far as they can be had here: what they lack is taken away, and the bytes are the same."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from converter.cli import check, to_gguf
from converter.errors import COULD_NOT, FINE, JUDGED_BAD
from converter.fleet.manifest import Defaults, read_manifest
from converter.fleet.rows import refuse_clashes
from fixtures.adapters import tiny_adapter
from fixtures.elsewhere import elsewhere
from fixtures.tiny import TinyModel
from fixtures.trainable import trainable

BASE = TinyModel("llama")
ROOT = Path(__file__).parents[3]
Ran = subprocess.CompletedProcess[bytes]


def run(command: str, *arguments: object, path: Path | None = None, encoding: str = "utf-8") -> Ran:
    paths = os.pathsep.join(map(str, (*([path] if path else []), ROOT)))
    call = f"from converter.cli.{command} import main; main()"
    return subprocess.run(
        [sys.executable, "-c", call, *map(str, arguments)],
        capture_output=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
    )


@pytest.fixture(params=["windows", pytest.param("macos", marks=pytest.mark.thorough)])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if sys.platform != "linux":
        pytest.skip("the fakes are made out of Linux, /proc and case included")
    return elsewhere(tmp_path / request.param, request.param)


def test_the_fakes_take_away_what_they_say(system: Path, tmp_path: Path) -> None:
    """Otherwise what follows would show nothing."""
    (tmp_path / "a").touch()
    asks = ["import os; os.O_TMPFILE", "import os; os.stat('/proc')", f"open({str(tmp_path / 'A')!r}, 'x')"]
    if system.name == "windows":
        asks += ["import fcntl", "import resource", f"import os; os.open({str(tmp_path)!r}, os.O_RDONLY)"]
    for ask in asks:
        command = [sys.executable, "-c", ask]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
        (tmp_path / "A").unlink(missing_ok=True)
        ran = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": str(system)})
        assert ran.returncode == 1


def test_adapters_are_judged(system: Path, tmp_path: Path) -> None:
    for name in ("plain", "lm_head"):
        shutil.copytree(tiny_adapter(name, BASE), tmp_path / "all" / name)
    asked: tuple[object, ...] = (tmp_path / "all", "--base", BASE.gguf, "--no-config", "--jobs", 2, "--format", "json")
    here, there = run("check", *asked), run("check", *asked, path=system, encoding="cp1252")
    assert (here.returncode, there.returncode, there.stderr) == (JUDGED_BAD, JUDGED_BAD, b"")
    assert json.loads(here.stdout) == json.loads(there.stdout)


SPLIT = ["--to", "model", "--split-max-size", "300K"]


@pytest.mark.parametrize("options", [pytest.param([], marks=pytest.mark.thorough), ["--untie"], SPLIT])
def test_a_conversion_writes_the_same_bytes(options: list[str], system: Path, tmp_path: Path) -> None:
    adapter, base = tiny_adapter("plain" if not options or "--to" in options else "lm_head", BASE), trainable(BASE)
    for place, path, n_runs in (("here", None, 1), ("there", system, 2)):  # the second replaces what the first wrote
        (tmp_path / place).mkdir()
        for _ in range(n_runs):
            ran = run("to_gguf", adapter, "--base", base, *options, "-o", tmp_path / place / "out.gguf", path=path)
            assert (ran.returncode, ran.stderr) == (FINE, b"")
    here, there = ({p.name: p.read_bytes() for p in (tmp_path / place).iterdir()} for place in ("here", "there"))
    assert here == there
    assert len(here) > ("--split-max-size" in options)


def test_a_run_that_fails_leaves_nothing(system: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    ran = run(
        "to_gguf", tiny_adapter("lm_head", BASE), "--base", BASE.gguf, "-o", tmp_path / "full" / "a.gguf", path=system
    )
    assert ran.returncode == JUDGED_BAD
    assert list((tmp_path / "full").iterdir()) == []


@pytest.mark.parametrize(("first", "second"), [("a.gguf", "A.gguf"), ("new/a.gguf", "New/a.gguf")])
def test_two_outputs_of_a_fleet_are_one_file(first: str, second: str, system: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"adapter,output\na,out/{first}\nb,out/{second}\n", encoding="utf-8")
    refuse_clashes(list(read_manifest(tmp_path / "x.csv", Defaults())))
    ran = run("fleet", tmp_path / "x.csv", path=system)
    assert (ran.returncode, ran.stderr.count(b"\n")) == (COULD_NOT, 1)
    assert f"line 3: output {tmp_path}/out/{second} is that of" in ran.stderr.decode()


def test_no_input_is_written_over_under_another_case(system: Path, tmp_path: Path) -> None:
    adapter, base, manifest = tmp_path / "adapter", tmp_path / "base.gguf", tmp_path / "x.csv"
    shutil.copytree(tiny_adapter("plain", BASE), adapter)
    shutil.copy(BASE.gguf, base)
    manifest.write_text("adapter,output\na,b\n", encoding="utf-8")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    judged: tuple[object, ...] = ("check", adapter, "--base", base, "--no-config")
    for arguments in (
        (*judged, "--format", f"json={tmp_path / 'BASE.gguf'}"),
        (*judged, "--format", f"json={tmp_path / 'Adapter' / 'adapter_config.json'}"),
        (*judged, "--attest", tmp_path / "Adapter" / "new.json"),
        ("to_gguf", adapter, "--base", base, "--to", "model", "-o", tmp_path / "BASE.gguf"),
        ("fleet", manifest, "--table", tmp_path / "X.csv"),
    ):
        command, *others = map(str, arguments)
        ran = run(command, *others, path=system)
        assert (ran.returncode, ran.stderr.count(b"\n")) == (COULD_NOT, 1), arguments
        assert {path: path.read_bytes() for path in before} == before, arguments
    assert not (adapter / "new.json").exists()


@pytest.mark.parametrize("name", ["nul", "CON.gguf", "com1.a.gguf"])
def test_the_name_of_a_device_is_no_output_on_windows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [str(tiny_adapter("plain", BASE)), "--base", str(BASE.gguf), "-o", str(tmp_path / name)]
    assert CliRunner().invoke(to_gguf.main, asked).exit_code == FINE
    monkeypatch.setattr(sys, "platform", "win32")
    (tmp_path / name).unlink()
    refused = CliRunner().invoke(to_gguf.main, asked)
    assert (refused.exit_code, list(tmp_path.iterdir())) == (COULD_NOT, [])
    assert "is the name of a device on Windows" in refused.stderr


# https://learn.microsoft.com/en-us/cpp/c-language/parsing-c-command-line-arguments
TYPED = {
    r"C:\Users\me\adapter": r"C:\Users\me\adapter",
    r"D:\my adapters\灯台 (2)": r'"D:\my adapters\灯台 (2)"',
    r"\\server\it's & that": r""" "\\server\it's & that" """.strip(),
    "a$(calc)": "'a$(calc)'",
    "a” & calc": "'a” & calc'",
}


@pytest.mark.parametrize("name", TYPED)
def test_a_command_is_printed_as_it_is_typed_on_windows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drive letter and backslashes are a good name here."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_adapter("plain", BASE), name)
    shutil.copy(BASE.gguf, "base.gguf")
    asked = [name, "--base", "base.gguf", "--no-config"]
    assert f"    adapter-to-gguf {shlex.quote(name)} --base" in CliRunner().invoke(check.main, asked).stdout
    monkeypatch.setattr(sys, "platform", "win32")
    assert f"    adapter-to-gguf {TYPED[name]} --base" in CliRunner().invoke(check.main, asked).stdout


COMMANDS = ("check", "fleet", "to_gguf", "train", "verify")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_printed_on_any_console(command: str) -> None:
    ran = run(command, "--help", encoding="ascii")
    assert (ran.returncode, ran.stderr) == (FINE, b"")
    assert ran.stdout.decode("ascii").startswith("Usage: ")


OTHERS = ("json", "github", "gitlab", "sarif", "markdown", "html")


@pytest.mark.parametrize(
    "style", ["text", "junit", *(pytest.param(style, marks=pytest.mark.thorough) for style in OTHERS)]
)
def test_names_that_a_console_lacks_are_shown_by_number(style: str, tmp_path: Path) -> None:
    adapter = tmp_path / "灯台-🗼"
    shutil.copytree(tiny_adapter("lm_head", BASE), adapter)
    ran = run("check", adapter, "--base", BASE.gguf, "--no-config", "--format", style, encoding="cp1252")
    assert (ran.returncode, ran.stderr) == (JUDGED_BAD, b""), ran.stderr.decode()
    text = ran.stdout.decode("cp1252")
    assert any(form in text for form in (r"\u706f\u53f0", "%E7%81%AF", "&#28783;"))


def test_errors_are_printed_on_any_console(tmp_path: Path) -> None:
    for command, arguments in (("check", ()), ("to_gguf", ("-o", tmp_path / "灯.gguf"))):
        ran = run(command, tmp_path / "灯台", *arguments, encoding="cp1252")
        assert ran.returncode == 3
        assert b"\\u706f\\u53f0" in ran.stderr
        assert b"Traceback" not in ran.stderr
    ran = run(
        "to_gguf", tiny_adapter("plain", BASE), "--base", BASE.gguf, "-o", tmp_path / "灯" / "a.gguf", encoding="cp1252"
    )
    assert (ran.returncode, ran.stderr.count(b"\n")) == (COULD_NOT, 1)


def test_a_conversion_tells_its_steps_on_any_console(tmp_path: Path) -> None:
    out = tmp_path / "灯.gguf"
    ran = run("to_gguf", tiny_adapter("plain", BASE), "--base", BASE.gguf, "-o", out, encoding="cp1252")
    assert (ran.returncode, ran.stderr) == (FINE, b"")
    assert b"\\u706f.gguf" in ran.stdout
    assert out.is_file()
