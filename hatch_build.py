"""Compiles the kernels of converter/evaluation/native into the wheel, where there is a C++ compiler.

It is that of the environment variable CXX (a command with its arguments), else cc. Where there is none, it is too old,
or ADAPTER_TO_GGUF_KERNELS is 0, the wheel is pure Python, and numpy and libggml write the same bytes in more time.
ADAPTER_TO_GGUF_PLATFORM is the wheel's platform, where the compiler compiles for another one than this.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FOLDER: Final = Path("converter", "evaluation", "native")
_ENDING: Final = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")

# Strict IEEE: nothing is fused or reassociated, or the bytes would be others than numpy's and libggml's.
_FLAGS: Final = (
    "-x", "c++", "-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-exceptions", "-fno-rtti",
    "-fvisibility=hidden", "-fno-sanitize=undefined", "-Wno-psabi",
)  # fmt: skip
# What each level of kernels.cpp may use, as level.cpp asks the processor; elsewhere arithmetic may not be IEEE's own.
_AVX2: Final = ("-mavx2",)
_AVX512: Final = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512")
_X86_64: Final = {1: (), 3: _AVX2, 4: _AVX2 + _AVX512}
_ARM64: Final[dict[int, tuple[str, ...]]] = {1: ()}
_MACHINES: Final = {"x86_64": _X86_64, "amd64": _X86_64, "aarch64": _ARM64, "arm64": _ARM64}


class KernelsHook(BuildHookInterface[Any]):  # type: ignore[misc]  # hatchling isn't there everywhere
    """hatchling's door."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  hatchling's
        """Of a wheel, or of an editable install, for which the library lies among the sources."""
        library = compiled(Path(self.root))
        if library is None:
            return
        build_data["artifacts"].append(f"/{library.relative_to(self.root).as_posix()}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{os.environ.get('ADAPTER_TO_GGUF_PLATFORM') or _platform()}"


def compiled(root: Path) -> Path | None:
    """The library, made below the sources; None where it can't be."""
    levels = _MACHINES.get(platform.machine().lower())
    if levels is None or os.environ.get("ADAPTER_TO_GGUF_KERNELS") == "0":
        return None
    folder = root / _FOLDER
    library = folder / f"kernels{_ENDING}"
    library.unlink(missing_ok=True)
    compiler = _compiler()
    if compiler is None:
        _say("no C++ compiler (CXX, cc): a wheel without kernels")
        return None
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch, library.name)
        try:
            objects = [_run(compiler, *command) for command in _commands(folder, levels, Path(scratch))]
            shutil.move(_run(compiler, ("-shared", "-s", *map(str, objects)), made), library)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", "") or error
            _say(f"the kernels don't compile, so the wheel is without: {said}")
            return None
    return library


def sources_digest(folder: Path) -> str:
    """Of what the library is made of, which it can tell by itself."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".cpp", ".hpp"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _commands(
    folder: Path, levels: Mapping[int, tuple[str, ...]], scratch: Path
) -> Iterator[tuple[tuple[str, ...], Path]]:
    """What compiles each object, and the object."""
    position = () if sys.platform == "win32" else ("-fPIC",)
    made_of = f'-DMADE_OF="{sources_digest(folder)}"'
    yield (*_FLAGS, *position, made_of, "-c", str(folder / "level.cpp")), scratch / "level.o"
    for level, may_use in levels.items():
        command = (*_FLAGS, *position, *may_use, f"-DLEVEL={level}", "-c", str(folder / "kernels.cpp"))
        yield command, scratch / f"kernels_{level}.o"


def _compiler() -> list[str] | None:
    named = os.environ.get("CXX")
    if named:
        return shlex.split(named)
    found = shutil.which("cc")
    return [found] if found else None


def _run(compiler: list[str], arguments: tuple[str, ...], output: Path) -> Path:
    command = [*compiler, *arguments, "-o", str(output)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return output


def _platform() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def _say(what: str) -> None:
    print(f"hatch_build.py: {what}", file=sys.stderr)  # noqa: T201  pip -v shows it
