"""The command's exit status, over one adapter and over many; what it costs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from converter.cli.check import main
from converter.cli.jobs import side_by_side
from converter.derive.adapter import read_adapter
from converter.digests import adapter_digest
from converter.errors import COULD_NOT, FINE, JUDGED_BAD, NOTHING_LOOKED_AT, ConverterError
from converter.report.formats import FORMATS
from fixtures.generated import write_gemma_2b_base, write_gemma_2b_head_adapter
from tests.rules.specimens import HEAD, Specimen, head_lora, lora, write_gguf


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    specimen = Specimen(tmp_path / "adapters" / "good", base=None)
    specimen.write()
    return specimen.directory


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    specimen = Specimen(tmp_path / "adapters" / "bad", base=None)
    specimen.tensors |= head_lora()
    specimen.write()
    return specimen.directory


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tied.gguf")


def check(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def test_status_of_one_adapter(good: Path, bad: Path, base: Path) -> None:
    assert check(good, "--base", base).exit_code == FINE
    assert check(bad, "--base", base).exit_code == JUDGED_BAD
    assert check(bad, "--base", base, "--untie").exit_code == FINE
    assert check(bad, "--base", base, "--untie", "--to", "lora").exit_code == FINE


def test_the_worst_counts_over_several(good: Path, bad: Path, base: Path, tmp_path: Path) -> None:
    nowhere, unreadable = tmp_path / "nowhere", tmp_path / "unreadable"
    unreadable.mkdir()
    (unreadable / "adapter_model.safetensors").symlink_to("adapter_model.safetensors")  # a circle
    (unreadable / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert check(good, bad, "--base", base).exit_code == JUDGED_BAD
    assert check(good, bad, nowhere, "--base", base).exit_code == NOTHING_LOOKED_AT
    assert check(good, bad, nowhere, unreadable, "--base", base).exit_code == COULD_NOT
    assert check(good, good, "--base", base).exit_code == FINE


def test_a_directory_of_ten_is_judged_whole(tmp_path: Path, base: Path) -> None:
    for i in range(10):
        specimen = Specimen(tmp_path / "ten" / f"adapter-{i}", base=None)
        if i == 4:
            specimen.tensors |= lora(HEAD, 48, 32)
        specimen.write()
    ran = check(tmp_path / "ten", "--base", base)
    assert ran.exit_code == JUDGED_BAD
    assert ran.output.count("fine for --to lora") == 9
    assert ran.output.splitlines()[-1] == "10 looked at: 9 fine, 1 refused"


@pytest.mark.parametrize("name", ["empty", "nowhere", "notes.txt"])
def test_where_nothing_is_nothing_passes(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    for style in ("text", "json", "github"):
        assert check(tmp_path / name, "--format", style).exit_code == NOTHING_LOOKED_AT


def test_a_base_that_can_not_be_read_stops_all(good: Path, tmp_path: Path) -> None:
    ran = check(good, "--base", tmp_path / "nowhere", "--format", "json")
    assert ran.exit_code == COULD_NOT
    assert json.loads(ran.stdout)["unread"][0]["status"] == COULD_NOT


@pytest.mark.parametrize(
    "arguments", [(), ("--format", "xml", "x"), ("--explain", "HD999"), ("x", "--select", "Q"), ("x", "--to", "ollama")]
)
def test_wrong_usage_is_status_2(arguments: tuple[str, ...]) -> None:
    assert check(*arguments).exit_code == COULD_NOT


def test_strict_counts_what_was_not_looked_at(good: Path, base: Path) -> None:
    assert check(good, "--strict").exit_code == JUDGED_BAD
    assert check(good, "--base", base, "--strict", "--headers-only").exit_code == JUDGED_BAD
    assert check(good, "--base", base, "--strict").exit_code == FINE
    reads_numbers = "NM,BM008,BM010,BM047,CF014,HD006,HD008,HD014,LO017"
    assert check(good, "--base", base, "--strict", "--headers-only", "--ignore", reads_numbers).exit_code == FINE


def test_an_ignored_error_does_not_count_and_is_not_silent(bad: Path, base: Path) -> None:
    ran = check(bad, "--base", base, "--ignore", "hd001", "--format", "json")
    (report,) = json.loads(ran.stdout)["adapters"]
    assert ran.exit_code == FINE
    assert report["findings"] == []
    assert [finding["code"] for finding in report["hidden"]] == ["HD001"]
    assert [entry["blockers"] for entry in report["deployments"]] == [["HD001"], ["HD001"], [], []]


def test_select_applies_the_families_named(bad: Path, base: Path) -> None:
    assert check(bad, "--base", base, "--select", "ST,CF").exit_code == FINE
    assert check(bad, "--base", base, "--select", "HD").exit_code == JUDGED_BAD
    assert check(bad, "--base", base, "--select", "HD", "--ignore", "HD001").exit_code == FINE


def test_a_console_that_lacks_a_character_still_gets_the_report(good: Path) -> None:
    config = json.loads((good / "adapter_config.json").read_text(encoding="utf-8")) | {"größe_\ud800_漢": 1}
    (good / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    run = [sys.executable, "-m", "converter.cli.check", str(good)]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    ran = subprocess.run(run, capture_output=True, env=environment, timeout=60, check=False)
    assert ran.returncode == JUDGED_BAD
    assert b"gr\xf6\xdfe_\\ud800_\\u6f22: is 1" in ran.stdout
    assert ran.stderr == b""


def test_many_adapters_take_no_more_memory_than_a_few(tmp_path: Path) -> None:
    """What is printed is not kept: the reports of 1,500 adapters took 9 MB."""
    peaks = []
    for count in (100, 1500):
        for number in range(count):
            Specimen(tmp_path / f"{count}" / f"{number:04}", None).write()
        command = [sys.executable, "-c", _PEAK, str(tmp_path / f"{count}"), "--no-config", "--headers-only"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
        assert f"{count} looked at" in ran.stdout
        peaks.append(int(ran.stderr.split()[-1]))
    assert peaks[1] - peaks[0] < 4_000


_PEAK = """
import resource, sys
from converter.cli.check import main
try:
    main()
except SystemExit:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


@pytest.mark.parametrize(("options", "seconds", "kilobytes"), [((), 0.6, 60_000), (("--headers-only",), 0.3, 30_000)])
def test_a_gemma_2b_shaped_adapter_costs_little(
    options: tuple[str, ...], seconds: float, kilobytes: float, tmp_path: Path
) -> None:
    """CPU and memory of the whole process; an idle machine takes half."""
    base, adapter = write_gemma_2b_base(tmp_path / "base"), write_gemma_2b_head_adapter(tmp_path / "adapter")
    probe = (
        "import resource, subprocess, sys; ran = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL);"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(ran.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss)"
    )
    command = [sys.executable, "-m", "converter.cli.check", str(adapter), "--base", str(base), *options]
    runs = [
        subprocess.run([sys.executable, "-c", probe, *command], capture_output=True, text=True, timeout=60, check=True)
        for _ in range(3)
    ]
    figures = [[float(part) for part in ran.stdout.split()] for ran in runs]
    assert {status for status, _, _ in figures} == {JUDGED_BAD}
    assert min(taken for _, taken, _ in figures) <= seconds
    assert min(taken for _, _, taken in figures) <= kilobytes


def test_what_training_began_with_is_judged_too(tmp_path: Path) -> None:
    it = Specimen(tmp_path / "pissa", write_gguf(tmp_path / "base.gguf"))
    it.config["init_lora_weights"] = "pissa_niter_4"
    it.write()
    options = [str(it.directory), "--base", str(it.base), "--format", "json"]
    without = json.loads(check(*options).stdout)
    assert [finding["code"] for finding in without["adapters"][0]["findings"]] == ["CF012"]
    itself = check(*options, "--initial-adapter", str(it.directory))
    found = json.loads(itself.stdout)["adapters"]
    assert [[finding["code"] for finding in one["findings"]] for one in found] == [["CF014"] * 6, []]
    assert check(*options, "--initial-adapter", str(tmp_path / "nothing")).exit_code == COULD_NOT


def test_several_processes_say_what_one_says(tmp_path: Path) -> None:
    base = write_gguf(tmp_path / "base.gguf")
    for number in range(40):
        specimen = Specimen(tmp_path / "adapters" / f"{number:02}", None)
        specimen.tensors |= head_lora() if number % 3 == 0 else {}
        specimen.metadata = {"number": f"{number}"}  # no two have the same bytes, and so the same waiver
        specimen.write()
    (tmp_path / "adapters" / "07" / "adapter_model.safetensors").write_bytes(b"short")
    waiver = f'[[waivers]]\ncode = "HD001"\nadapter = "{adapter_digest(read_adapter(tmp_path / "adapters" / "03"))}"\n'
    (tmp_path / "policy.toml").write_text(f'{waiver}reason = "known"\nexpires = 2099-01-01\n', encoding="utf-8")
    paths = [str(tmp_path / "adapters"), str(tmp_path / "nowhere")]
    arguments = [*paths, "--base", str(base), "--config", str(tmp_path / "policy.toml"), "--format", "json"]
    one, several = (CliRunner().invoke(main, [*arguments, "--jobs", jobs]) for jobs in ("1", "3"))
    assert several.stdout == one.stdout
    assert (several.exit_code, several.stderr) == (one.exit_code, one.stderr)
    statuses = [found["status"] for found in json.loads(one.stdout)["adapters"]]
    refused = [number for number in range(40) if (number % 3 == 0 and number != 3) or number == 7]
    assert statuses == [JUDGED_BAD if number in refused else FINE for number in range(40)]
    assert one.exit_code == NOTHING_LOOKED_AT


def test_a_process_that_is_killed_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match="one of the processes of --jobs was ended"):
        list(side_by_side(_killed, [tmp_path], 2))


def _killed(_thing: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("options", "status", "said"), [((), COULD_NOT, "numpy, by which"), (("--headers-only",), FINE, "fine for")]
)
def test_without_numpy_headers_are_judged(options: tuple[str, ...], status: int, said: str, good: Path) -> None:
    program = "import sys; sys.modules['numpy'] = None; from converter.cli.check import main; main()"
    command = [sys.executable, "-c", program, str(good), "--no-config", *options]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == status
    assert said in ran.stdout + ran.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text elsewhere")
@pytest.mark.parametrize("style", FORMATS)
def test_a_name_that_is_no_text_is_written_in_every_format(style: str, tmp_path: Path) -> None:
    """Of a file, and of a field of the config."""
    specimen = Specimen(tmp_path / os.fsdecode(b"\xff"), None)
    specimen.config["\ud800"] = 1
    specimen.write()
    report = tmp_path / "report"
    paths = [str(specimen.directory), str(tmp_path / os.fsdecode(b"\xfe"))]
    result = CliRunner().invoke(main, [*paths, "--no-config", "--format", f"{style}={report}", "--format", style])
    assert result.exit_code == NOTHING_LOOKED_AT, result.output
    assert "error of ours" not in result.output
    assert report.read_text(encoding="utf-8")


SIDE_BY_SIDE = """
import os, sys, time
from converter.cli.jobs import side_by_side
def judge(thing):
    os.write(1, b"judging" + os.linesep.encode())
    time.sleep(60)
if __name__ == "__main__":
    list(side_by_side(judge, range(2), 2))
"""


def test_the_processes_of_jobs_end_with_a_killed_parent(tmp_path: Path) -> None:
    """They share its pipe: as long as one lives, whoever reads of it waits."""
    (tmp_path / "judges.py").write_text(SIDE_BY_SIDE)
    process = subprocess.Popen([sys.executable, tmp_path / "judges.py"], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert [process.stdout.readline() for _ in range(2)] == ["judging\n"] * 2
    process.kill()
    process.communicate(timeout=30)
