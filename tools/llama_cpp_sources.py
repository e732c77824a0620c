"""llama.cpp's own converter: convert_hf_to_gguf.py and its conversion package, of the build that tests run.

    python -m tools.llama_cpp_sources      puts them into .venv/llama.cpp

No wheel has them. The sdist of xllamacpp has; the environment variable LLAMA_CPP_SOURCES names another place.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

_DEFAULT: Final = Path(sys.prefix) / "llama.cpp"
_HASHES: Final = Path(__file__).parent.parent / "hashes" / "all.txt"
_WANTED: Final = ("conversion/", "gguf-py/", "convert_")  # of the directory thirdparty/llama.cpp


def sources() -> Path | None:
    """The directory of llama.cpp's sources, or None where there is none."""
    directory = Path(os.environ.get("LLAMA_CPP_SOURCES", _DEFAULT))
    return directory if (directory / "conversion" / "base.py").is_file() else None


class Job(NamedTuple):
    """A directory, the GGUF to make of it, and its outtype as gguf's LlamaFileType calls it.

    ``as_stated``: what config.json doesn't say, transformers' class doesn't either, as before transformers had one.
    ``fuse``: by its options --fuse-qkv and --fuse-gate-up-exps.
    """

    directory: Path
    gguf: Path
    outtype: str = "ALL_F32"
    as_stated: bool = False
    fuse: bool = False


def convert(jobs: Iterable[Job]) -> Mapping[Path, str]:
    """Make GGUFs without a vocabulary: all in one process, which starts for seconds.

    Returns what went wrong, by GGUF. Raises FileNotFoundError where there are no sources.
    """
    directory = sources()
    if directory is None:
        raise FileNotFoundError("no sources of llama.cpp: see tools/llama_cpp_sources.py")
    program = Path(__file__).with_name("run_converter.py")
    done = subprocess.run(
        [sys.executable, "-P", str(program), str(directory)],
        input=json.dumps([(str(job.directory), str(job.gguf), *job[2:]) for job in jobs]),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=600,
    )
    if done.returncode:
        raise RuntimeError(f"llama.cpp's converter ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return {Path(gguf): error for gguf, error in json.loads(done.stdout).items()}


def unpack(directory: Path) -> None:
    """Download the sdist of xllamacpp, by the hash that its pin has, and take the converter out of it."""
    with TemporaryDirectory() as folder:
        requirement = Path(folder) / "xllamacpp.txt"
        pinned = re.search(r"^xllamacpp==.*(?:\n    .*)*", _HASHES.read_text(encoding="utf-8"), re.MULTILINE)
        requirement.write_text(pinned[0] if pinned else "", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "xllamacpp"]
        subprocess.run([*pip, "--require-hashes", "--requirement", requirement, "--dest", folder], check=True)
        (sdist,) = Path(folder).glob("xllamacpp-*.tar.gz")
        with tarfile.open(sdist) as archive:
            archive.extractall(directory, members=_of_converter(archive), filter="data")


def _of_converter(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        _, inside, name = member.name.partition("/thirdparty/llama.cpp/")
        if inside and name.startswith(_WANTED):
            yield member.replace(name=name)


if __name__ == "__main__":
    unpack(_DEFAULT)
