"""adapter-to-gguf when things go wrong: no partial file, one clear line on stderr, the right status.

Each run is a process of its own. No model is loaded, so these tests need neither torch nor llama.cpp.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.rules.specimens import Specimen, head_lora
from tests.unit.conversion import write_base

ROOT = Path(__file__).parents[2]
COMMAND = "from converter.cli.to_gguf import main; main(prog_name='adapter-to-gguf')"

# The same command, which says after the first block of a tensor that it is writing, and waits to be stopped or told
# to go on.
HELD = f"""
import sys
from converter.writing import gguf_file
in_order = gguf_file.in_order
def held(*arguments):
    for n, block in enumerate(in_order(*arguments)):
        yield block
        if n == 0:
            gguf_file.in_order = in_order
            print("writing", flush=True)
            sys.stdin.readline()
gguf_file.in_order = held
{COMMAND}
"""
# File systems without nameless files get a temporary one.
WITHOUT_NAMELESS = "import os; vars(os).pop('O_TMPFILE', None)"


@dataclass(frozen=True, slots=True)
class Workplace:
    """An adapter with a trained head, its tied base, and a directory for what is written."""

    specimen: Specimen
    base: Path
    output: Path

    def arguments(self, *options: str | Path) -> list[str]:
        return [str(self.specimen.directory), "--base", str(self.base), *map(str, options)]

    def files(self) -> list[str]:
        """What lies in the directory of outputs, hidden files too."""
        return sorted(str(path.relative_to(self.output)) for path in self.output.rglob("*") if path.is_file())


@pytest.fixture
def here(tmp_path: Path) -> Workplace:
    base = write_base(tmp_path / "base.gguf")
    specimen = Specimen(tmp_path / "adapter", base)
    specimen.tensors |= head_lora()
    specimen.write()
    (tmp_path / "output").mkdir()
    return Workplace(specimen, base, tmp_path / "output")


def run(*arguments: str | Path, code: str = COMMAND) -> "subprocess.CompletedProcess[str]":
    return ended([sys.executable, "-c", code, *map(str, arguments)])


def ended(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)


def one_line(ran: "subprocess.CompletedProcess[str]", status: int) -> str:
    """The one line on stderr of a run that ended with `status`."""
    assert ran.returncode == status, ran
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith("adapter-to-gguf: ")
    return line.removeprefix("adapter-to-gguf: ")


# --- Stopped in the middle --------------------------------------------------------------------------------------------

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the held command and wait until it writes."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str | Path, code: str = HELD) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "writing\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


DEPLOYMENTS = {
    "a model": ["--untie"],
    "two files": ["--untie", "--to", "lora"],
    "shards": ["--untie", "--split-max-size", "20K"],
}


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda it: it.name)
@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_stopped_in_the_middle(deployment: str, signal_number: signal.Signals, here: Workplace, start: Start) -> None:
    process = start(*here.arguments("-o", here.output / "new", *DEPLOYMENTS[deployment]))
    process.send_signal(signal_number)
    process.communicate()
    killed = signal_number == signal.SIGKILL
    assert process.returncode == (-signal_number if killed else 128 + signal_number)
    # What is killed can't clean up: there only a file without a name leaves nothing.
    leaves_a_file = signal_number == signal.SIGKILL and not has_nameless_files(here.output)
    assert {Path(name).suffix for name in here.files()} == ({".partial"} if leaves_a_file else set())


def has_nameless_files(directory: Path) -> bool:
    try:
        os.close(os.open(directory, os.O_TMPFILE | os.O_RDWR))
    except (AttributeError, OSError):
        return False
    return True


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT], ids=lambda it: it.name)
def test_stopped_where_files_need_a_name(signal_number: signal.Signals, here: Workplace, start: Start) -> None:
    process = start(*here.arguments("-o", here.output / "new", "--untie"), code=f"{WITHOUT_NAMELESS}\n{HELD}")
    assert [name[-8:] for name in here.files()] == [".partial"]
    process.send_signal(signal_number)
    process.communicate()
    assert here.files() == []


def test_what_was_there_stays_until_the_end(here: Workplace, start: Start) -> None:
    output = here.output / "model.gguf"
    output.write_bytes(b"GGUF of an older conversion")
    start(*here.arguments("-o", output, "--untie")).kill()
    assert output.read_bytes() == b"GGUF of an older conversion"
    process = start(*here.arguments("-o", output, "--untie"))
    process.communicate("\n")
    assert process.returncode == 0
    assert output.read_bytes().startswith(b"GGUF")
    assert here.files() == ["model.gguf"]


# The command, killed when it has given that many files their names. Each call of os.link is one.
KILLED = f"""
import os, signal, sys
names, link = int(sys.argv.pop(1)), os.link
def counted(*arguments, **options):
    global names
    if not names:
        os.kill(os.getpid(), signal.SIGKILL)
    names -= 1
    link(*arguments, **options)
os.link = counted
{COMMAND}
"""


@pytest.mark.parametrize("there", [False, True], ids=["nothing there", "an older one there"])
@pytest.mark.parametrize("names", [0, 1, 2])
def test_killed_while_shards_get_their_names(names: int, there: bool, here: Workplace) -> None:
    """No name is given before all bytes are on the disk, and without the first file a model is none."""
    if not has_nameless_files(here.output):
        pytest.skip("this file system wants names")
    arguments = here.arguments("-o", here.output / "model.gguf", "--untie", "--split-max-size", "20K")
    if there:
        assert run(*arguments).returncode == 0
    older = here.files()
    assert run(str(names), *arguments, code=KILLED).returncode == -signal.SIGKILL
    assert "model-00001-of-00005.gguf" not in here.files()
    again = run(*arguments)
    assert again.returncode == 0
    assert [name for name in here.files() if not name.endswith(".partial")] == (older or FIVE)


FIVE = [f"model-{no:05}-of-00005.gguf" for no in range(1, 6)]


# --- No room ----------------------------------------------------------------------------------------------------------


LIMITED = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); {COMMAND}"


@pytest.mark.parametrize("code", [LIMITED, f"{WITHOUT_NAMELESS}; {LIMITED}"], ids=["nameless", "temporary"])
def test_a_file_that_grows_too_large(code: str, here: Workplace) -> None:
    ran = run(*here.arguments("-o", here.output / "model.gguf", "--untie"), code=code)
    message = f"{here.output}/model.gguf: can't be written: File too large; nothing was left behind"
    assert one_line(ran, 2) == message
    assert here.files() == []


# A file system of size $2 that this shell and its children alone see; what is left in it is told at the end.
SMALL_DISK = """
mount -t tmpfs -o size="$2" tmpfs "$1" || exit 99
directory=$1; shift 2
"$@"; status=$?
find "$directory" -type f >&2
exit $status
"""
# After the first block, something else takes what is left of the disk.
FILLED = f"""
import sys
from converter.writing import gguf_file
in_order = gguf_file.in_order
def fill():
    try:
        with open(sys.argv[-1] + ".filler", "wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
    except OSError:
        pass
def filling(*arguments):
    for n, block in enumerate(in_order(*arguments)):
        yield block
        if n == 0:
            fill()
gguf_file.in_order = filling
{COMMAND}
"""
FULL = "can't be written: No space left on device; nothing was left behind"
FULL_DISKS = {
    "filled while writing": (FILLED, "200k", FULL, ["model.gguf.filler"]),
    "filled, with a temporary file": (f"{WITHOUT_NAMELESS}\n{FILLED}", "200k", FULL, ["model.gguf.filler"]),
    "too small from the start": (COMMAND, "40k", "needs 63,456 bytes, 40,960 are free there; nothing was written", []),
}


def can_mount() -> bool:
    if not shutil.which("unshare"):
        return False
    probe = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /tmp"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


# Where nothing can be mounted, the file size limit above is the portable form of the same fault.
@pytest.mark.parametrize("case", FULL_DISKS if can_mount() else ())
def test_a_full_disk(case: str, here: Workplace) -> None:
    code, size, message, left = FULL_DISKS[case]
    command = [sys.executable, "-c", code, *here.arguments("--untie", "-o", here.output / "model.gguf")]
    inside = ["unshare", "-rm", "sh", "-c", SMALL_DISK, "sh", str(here.output), size, *command]
    ran = ended(inside)
    assert ran.returncode == 2
    line, *files = ran.stderr.splitlines()
    assert line == f"adapter-to-gguf: {here.output}/model.gguf: {message}"
    assert [Path(file).name for file in files] == left


# --- Nothing to read, nowhere to write --------------------------------------------------------------------------------


def test_a_directory_as_output(here: Workplace) -> None:
    line = one_line(run(*here.arguments("-o", here.output, "--untie")), 2)
    assert line == f"{here.output}: is a directory; give a file name with -o"


def test_a_file_where_a_directory_is_wanted(here: Workplace) -> None:
    (here.output / "file").touch()
    line = one_line(run(*here.arguments("-o", here.output / "file", "--untie", "--to", "lora")), 2)
    assert line == f"{here.output}/file: wanted a directory for two files: File exists"


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_a_directory_that_is_not_there(deployment: str, here: Workplace) -> None:
    ran = run(*here.arguments("-o", here.output / "gone" / "new", *DEPLOYMENTS[deployment]))
    assert one_line(ran, 2).endswith("No such file or directory")
    assert not (here.output / "gone").exists()


def test_the_base_as_output(here: Workplace) -> None:
    before = here.base.read_bytes()
    line = one_line(run(*here.arguments("-o", here.base, "--untie")), 2)
    assert line == f"{here.base}: is an input of this conversion; give another name with -o"
    assert here.base.read_bytes() == before


def test_a_base_that_is_not_there(here: Workplace) -> None:
    here.base.unlink()
    line = one_line(run(*here.arguments("-o", here.output / "new", "--untie")), 2)
    assert line.startswith(f"{here.base}: no such base")


@pytest.mark.parametrize("n_bytes", [0, 3, 20, 200, 1000, 5000, -1])
def test_a_truncated_base(n_bytes: int, here: Workplace) -> None:
    here.base.write_bytes(here.base.read_bytes()[:n_bytes])
    line = one_line(run(*here.arguments("-o", here.output / "new", "--untie")), 2)
    assert line.startswith(f"{here.base}: ")
    assert here.files() == []


def test_a_truncated_adapter(here: Workplace) -> None:
    weights = here.specimen.weights
    weights.write_bytes(weights.read_bytes()[:-1])
    ran = run(*here.arguments("-o", here.output / "new", "--untie"))
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].endswith("refused for --untie --to model: ST011")
    assert here.files() == []


def without_privileges(command: list[str]) -> list[str]:
    """The command as one whom permissions bind: root only where it gives up what overrides them."""
    return command if os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]


# What is locked, by its name below the place of all: the base, its directory, and so on.
LOCKED = {
    "base": ("locked/base.gguf", 0o000),
    "directory of the base": ("locked", 0o000),
    "weights": ("adapter/adapter_model.safetensors", 0o000),
    "config": ("adapter/adapter_config.json", 0o000),
    "adapter": ("adapter", 0o000),
    "output, against writing": ("output", 0o500),
    "output": ("output", 0o000),
}
BINDS = bool(os.geteuid() or shutil.which("setpriv"))  # root alone may read everything


@pytest.mark.parametrize("case", LOCKED if BINDS else ())
def test_what_may_not_be_read_or_written(case: str, here: Workplace) -> None:
    root = here.base.parent
    (root / "locked").mkdir()
    base = here.base.rename(root / "locked" / "base.gguf")
    name, mode = LOCKED[case]
    arguments = [here.specimen.directory, "--base", base, "--untie", "-o", here.output / "new"]
    (root / name).chmod(mode)
    try:
        ran = ended(without_privileges([sys.executable, "-c", COMMAND, *map(str, arguments)]))
    finally:
        (root / name).chmod(0o700)
    line = one_line(ran, 2)
    assert line.startswith(f"{root / name}")
    assert line.endswith(("Permission denied", "Permission denied; nothing was left behind"))
    assert here.files() == []


# --- No adapter, or too many ------------------------------------------------------------------------------------------


def test_an_empty_directory(here: Workplace) -> None:
    line = one_line(run(here.output, "--base", here.base), 3)
    assert line == f"{here.output}: no adapter there (no adapter_config.json)"


def test_a_mistyped_path(here: Workplace) -> None:
    assert "adaptor" in one_line(run(here.base.parent / "adaptor", "--base", here.base), 3)


def test_several_adapters(here: Workplace) -> None:
    for name in ("one", "two"):
        shutil.copytree(here.specimen.directory, here.output / name)
    before = here.files()
    line = one_line(run(here.output, "--base", here.base), 2)
    assert line.startswith(f"{here.output}: holds 2 adapters (")
    assert here.files() == before


def test_no_base(here: Workplace) -> None:
    line = one_line(run(here.specimen.directory), 2)
    start = f"{here.specimen.directory}: its base 'me/tiny' is not on this machine; give it with --base"
    assert line == f"{start} (`--base me/tiny --download` fetches it)"


@pytest.mark.parametrize(
    "options", [["--to", "gguf"], ["--outtype", "q4_k_m"], ["--format", "xml"], ["--unknown"], ["second"]]
)
def test_usage(options: list[str], here: Workplace) -> None:
    ran = run(*here.arguments(*options))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "Error: " in ran.stderr


# --- And when all is well ---------------------------------------------------------------------------------------------


def test_a_pipe_is_quiet(here: Workplace) -> None:
    ran = run(*here.arguments("-o", here.output / "model.gguf", "--untie"))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"{here.output}/model.gguf  ")
    assert "\x1b" not in ran.stdout


def test_a_closed_pipe_is_no_fault_of_the_file(here: Workplace) -> None:
    command = [sys.executable, "-c", COMMAND, *here.arguments("-o", here.output / "model.gguf", "--untie")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stdout
    process.stdout.close()
    _, errors = process.communicate()
    assert b"Traceback" not in errors
    assert here.files() == ["model.gguf"]


def test_data_for_machines_is_json_and_nothing_else(here: Workplace) -> None:
    ran = run(*here.arguments("-o", here.output / "model.gguf", "--untie", "--format", "json"))
    assert json.loads(ran.stdout)["files"][0]["path"] == f"{here.output}/model.gguf"
    assert ran.stderr == ""
