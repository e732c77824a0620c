"""The library in a service: from threads, hundreds of times in one process, plans that nobody closes."""

import gc
import os
import resource
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest
from threadpoolctl import threadpool_info

from converter import Deployment, Refused, check, convert, plan, read_adapter, read_base
from converter.writing.one_blas_thread import one_blas_thread
from fixtures.variation import BASES, save_variation
from fixtures.variations import VARIATIONS
from tests.rules.specimens import Specimen
from tests.unit.conversion import write_base

MODEL = Deployment("model")


@pytest.fixture
def specimen(tmp_path: Path) -> Specimen:
    it = Specimen(tmp_path / "adapter", write_base(tmp_path / "base.gguf"))
    it.write()
    return it


def n_handles() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  a name each


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="handles are counted in /proc")
def test_500_conversions_leave_nothing(specimen: Specimen, tmp_path: Path) -> None:
    before = {path.name for path in Path(os.environ.get("TMPDIR", "/tmp")).iterdir()}  # noqa: S108
    for _ in range(25):
        convert_and_judge(specimen, tmp_path)
    gc.collect()
    handles, memory, threads = n_handles(), resident(), threading.active_count()
    for _ in range(225):
        convert_and_judge(specimen, tmp_path)
    gc.collect()
    assert n_handles() == handles
    assert threading.active_count() == threads
    assert resident() - memory < 8_000_000, "225 leaks of 40 kB would show"
    after = {path.name for path in Path(os.environ.get("TMPDIR", "/tmp")).iterdir()}  # noqa: S108
    assert not {name for name in after - before if name.startswith(".adapter-to-gguf-")}


def convert_and_judge(specimen: Specimen, tmp_path: Path) -> None:
    assert specimen.base
    convert(specimen.directory, tmp_path / "lora.gguf", base=specimen.base)
    convert(specimen.directory, tmp_path / "model.gguf", base=specimen.base, deployment=MODEL)
    assert check(read_adapter(specimen.directory), read_base(specimen.base)).passed


def test_threads_write_the_same_bytes_at_once(specimen: Specimen, tmp_path: Path) -> None:
    """To outputs of their own, and all to one: the last one counts, and every reader sees a whole file."""

    def run(i: int) -> str:
        (own,) = convert(specimen.directory, tmp_path / f"{i}.gguf", base=specimen.base, deployment=MODEL)
        convert(specimen.directory, tmp_path / "shared.gguf", base=specimen.base, deployment=MODEL)
        return sha256(own.path.read_bytes()).hexdigest()

    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(run, range(24)))
    assert digests == {sha256((tmp_path / "shared.gguf").read_bytes()).hexdigest()}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def n_blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_blas_gets_its_threads_back_after_the_last_writer() -> None:
    """Writers that overlap: the one that came second must not leave what the first one set."""
    before = n_blas_threads()
    first, second = one_blas_thread(), one_blas_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert set(n_blas_threads()) <= {1}
    second.__exit__(None, None, None)
    assert n_blas_threads() == before


def test_a_plan_holds_what_peft_computed_until_it_is_closed(tmp_path: Path) -> None:
    variation = next(variation for variation in VARIATIONS if variation.name == "IA3")
    truth = save_variation(variation, BASES["llama"], tmp_path / "adapter")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    adapter, base = read_adapter(tmp_path / "adapter"), read_base(truth.gguf)
    planned = plan(adapter, base, MODEL, scratch=scratch)
    assert len(list(scratch.iterdir())) == 1
    planned.close()
    planned.close()
    assert list(scratch.iterdir()) == []
    forgotten = plan(adapter, base, MODEL, scratch=scratch)
    assert len(list(scratch.iterdir())) == 1
    del forgotten
    gc.collect()
    assert list(scratch.iterdir()) == []


def test_a_refusal_leaves_nothing_of_what_peft_computed(tmp_path: Path) -> None:
    variation = next(variation for variation in VARIATIONS if variation.name == "pissa_niter_4")
    truth = save_variation(variation, BASES["llama"], tmp_path / "adapter")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(Refused, match="CF012"):
        plan(read_adapter(tmp_path / "adapter"), read_base(truth.gguf), MODEL, scratch=scratch)
    assert list(scratch.iterdir()) == []


def test_nothing_is_printed_or_changed(specimen: Specimen, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import signal
    import warnings

    state = dict(os.environ), signal.getsignal(signal.SIGTERM), list(warnings.filters), list(sys.path)
    convert_and_judge(specimen, tmp_path)
    assert (dict(os.environ), signal.getsignal(signal.SIGTERM), list(warnings.filters), list(sys.path)) == state
    assert capfd.readouterr() == ("", "")
