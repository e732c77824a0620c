"""``python -m tests.fuzz.harness --seed S --count N``: spoilt inputs by the thousand, a function of seed and number.

Each goes through its door in this process, as the base install has it (no torch). A fault is an exception other than
ConverterError, more than 2 s of CPU, or more than 200 MB of memory; it is printed, and its files are kept. One case
again: ``--case NUMBER``.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from tests.fuzz.corpus import Files, Seed

SECONDS: Final = 2.0
NBYTES: Final = 200 << 20
_HANG_SECONDS: Final = 3.0


class Fault(NamedTuple):
    """What one input did that none may do."""

    number: int
    seed: str
    what: str


class _TooLong(BaseException):
    """An input that doesn't come to an end; no handler of Exceptions may swallow it."""


def run(seed: int, numbers: range, kept: Path | None, plant: str = "") -> Iterator[Fault | None]:
    """What each of these cases comes to: a fault, or None. The files of a fault are kept below ``kept``."""
    from tests.fuzz.corpus import seeds  # writes pickles with torch

    os.environ["ADAPTER_TO_GGUF_TRACEBACK"] = "1"
    warnings.simplefilter("error", RuntimeWarning)  # numpy's would be printed among the report
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_memory()) as scratch:
        corpus = seeds(Path(scratch, "seeds"))
        # An input that takes all memory ends in a MemoryError, and not the machine.
        resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + 16 * NBYTES, resource.RLIM_INFINITY))
        for name in ("torch", "peft", "transformers"):
            sys.modules[name] = None  # type: ignore[assignment]  # import fails, as where they aren't installed
        if plant:
            PLANTS[plant]()
        for number in numbers:
            directory = Path(scratch, "case")
            rng = random.Random(f"{seed} {number}")  # noqa: S311  to be repeated, not kept secret
            chosen = rng.choice(corpus)
            _write(rng, chosen.files, directory)
            what = _what_it_does(chosen, rng, directory)
            if what and kept:
                shutil.copytree(directory, kept / f"{seed}-{number}", symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(directory)
            yield Fault(number, chosen.name, what) if what else None


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  a private directory in it


def _write(rng: random.Random, files: "Files", directory: Path) -> None:
    """The files of a seed, of which some are spoilt: mostly one, now and then one in another's place, or none."""
    from tests.fuzz.mutations import spoilt

    changed = dict(files)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        name = rng.choice([*changed]) if changed else ""
        match rng.randrange(30):
            case 0 if name:
                del changed[name]
            case 1 if name:
                changed[name] = rng.choice([*changed.values()])
            case _ if name:
                changed[name] = spoilt(rng, name, changed[name])
    directory.mkdir()
    for name, data in changed.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if changed and rng.randrange(50) == 0:
        _put_another_thing(rng, directory / rng.choice([*changed]))


def _put_another_thing(rng: random.Random, path: Path) -> None:
    """In a file's place: a directory, a link, a device or a pipe."""
    path.unlink()
    match rng.randrange(5):
        case 0:
            path.mkdir()
        case 1:
            path.symlink_to("/dev/zero")
        case 2:
            path.symlink_to(path)
        case 3:
            path.symlink_to("/etc/passwd")
        case _:
            os.mkfifo(path)


def _what_it_does(seed: "Seed", rng: random.Random, directory: Path) -> str:
    """What is wrong with how a case ends; nothing, as it should be."""
    from tests.fuzz.doors import go_through

    before, begin = _reset_peak(), time.process_time()
    try:
        with _ended_after(_HANG_SECONDS):
            go_through(seed.door, rng, directory, seed.base)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return "".join(traceback.format_exception(error)[-8:])
    seconds, grown = time.process_time() - begin, _peak() - before
    if seconds > SECONDS:
        return f"took {seconds:.1f} s of CPU (at most {SECONDS:g})"
    return f"took {grown >> 20} MB (at most {NBYTES >> 20})" if grown > NBYTES else ""


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    def end(_number: int, _frame: FrameType | None) -> None:
        raise _TooLong(f"no end after {seconds:g} s")

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 20 * seconds)  # whatever waits; a busy machine is slow
    signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)


def _reset_peak() -> int:
    """Begin to count the peak of this process's memory anew (Linux), and say what it takes now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.partition(f"{name}:")[2].split()[0]) << 10


def _crash(*_: object) -> None:
    raise KeyError("planted")


def _loop(*_: object) -> None:
    while True:
        pass


def _planted(what: Callable[..., object]) -> Callable[[], None]:
    def plant() -> None:
        from converter.rules import container

        container.duplicate_key.RULE.check.run = what  # type: ignore[union-attr]

    return plant


def _grow(*_: object) -> tuple[()]:
    bytearray(2 * NBYTES)
    return ()


PLANTS: Final = {"crash": _planted(_crash), "loop": _planted(_loop), "growth": _planted(_grow)}


def main() -> int:
    """Run as the command line says; 1 where there was a fault."""
    parser = argparse.ArgumentParser(description="spoilt inputs by the thousand")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--begin", type=int, default=0, help="the first number")
    parser.add_argument("--case", type=int, help="this number alone")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-output"), help="where the files of faults are kept")
    parser.add_argument("--plant", choices=[*PLANTS], help="break something, to see that it is found")
    told = parser.parse_args()
    begin, count = (told.begin, told.count) if told.case is None else (told.case, 1)
    faults = 0
    for number, fault in enumerate(run(told.seed, range(begin, begin + count), told.keep, told.plant), 1):
        if fault:
            faults += 1
            print(f"--seed {told.seed} --case {fault.number}, of {fault.seed}:\n{fault.what}\n", flush=True)
        if number % 1000 == 0 or number == count:
            print(f"{number} of {count}, {faults} faults", file=sys.stderr, flush=True)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
