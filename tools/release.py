"""A release: wheels and sdist, built twice and equal, tried in clean environments; a bill of materials and checksums.

    python -m tools.release            puts them into dist/; a tag and an upload are for people to do

Everything is made of the last commit: what isn't committed stops it. One wheel has the kernels, for Linux on x86-64;
the other, pure Python, is for everywhere else. The compiler is zig's, and compiles for glibc 2.17.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from converter.version import __version__

_ROOT: Final = Path(__file__).parents[1]
_OUTPUT: Final = _ROOT / "dist"
_TOOLS: Final = ("build==1.6.1", "twine==7.0.0", "cyclonedx-bom==7.5.0", "ziglang==0.17.1", "auditwheel==6.8.2")
_PLATFORM: Final = "manylinux_2_17_x86_64"
_CONSTRAINTS: Final = ("--constraint", str(_ROOT / "constraints.txt"))


def main() -> None:
    """Make the release of the last commit."""
    _require_clean()
    with tempfile.TemporaryDirectory(prefix="release-") as directory:
        made = release(Path(directory))
        _OUTPUT.mkdir(exist_ok=True)
        for path in made:
            (_OUTPUT / path.name).write_bytes(path.read_bytes())
            print(f"{_OUTPUT / path.name}  {path.stat().st_size:,} bytes")


def release(place: Path) -> list[Path]:
    """The files of a release, below ``place``. Raises subprocess.CalledProcessError where a step fails."""
    _say("the tools that build")
    tools = _environment(place / "tools", *_TOOLS)
    compiler = f"{tools / 'python'} -I -m ziglang cc -target x86_64-linux-gnu.2.17"
    fast, sdist = _made(tools, place / "with kernels", {"CXX": compiler, "ADAPTER_TO_GGUF_PLATFORM": _PLATFORM})
    pure, same = _made(tools, place / "pure Python", {"ADAPTER_TO_GGUF_KERNELS": "0"})
    if _sums([sdist]) != _sums([same]):
        raise RuntimeError("two sdists of one commit differ")
    if f'"{_PLATFORM}"' not in _run(tools / "auditwheel", "show", str(fast)):
        raise RuntimeError(f"{fast.name} wants more than its name says: auditwheel show {fast}")
    for path in (fast, pure, sdist):
        _say(f"{path.name} in an environment of its own")
        tried = _environment(place / f"tried {path.name}", *_CONSTRAINTS, str(path))
        _try(tried, has_kernels=path is fast)
    bill = place / f"adapter-to-gguf-{__version__}.cdx.json"
    _say("what the wheel brings, as a bill of materials")
    _run(tools / "cyclonedx-py", "environment", "--output-reproducible", "-o", str(bill), str(tried / "python"))
    sums = place / "SHA256SUMS"
    files = [fast, pure, sdist, bill]
    sums.write_text("".join(f"{digest}  {name}\n" for name, digest in _sums(files).items()))
    return [*files, sums]


def _made(tools: Path, place: Path, settings: Mapping[str, str]) -> tuple[Path, Path]:
    """A wheel and an sdist."""
    _say(f"wheel and sdist, {place.name}, twice")
    first, second = (_built(tools, place / name, settings) for name in ("dist", "again"))
    if _sums(first) != _sums(second):
        raise RuntimeError(f"two builds of one commit differ: {_sums(first)}, {_sums(second)}")
    _run(tools / "twine", "check", "--strict", *map(str, first))
    wheel, sdist = sorted(first, key=lambda path: path.suffix != ".whl")
    _require_same_content(wheel, _built(tools, place / "of the sdist", settings, sdist)[0])
    return wheel, sdist


def _require_clean() -> None:
    changed = _git("status", "--porcelain")
    if changed:
        sys.exit(f"not committed:\n{changed}")


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True).stdout.strip()


def _environment(directory: Path, *what: str) -> Path:
    """The programs of a new environment with these packages."""
    venv.create(directory, with_pip=True)
    programs = directory / ("Scripts" if os.name == "nt" else "bin")
    _run(programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what)
    return programs


def _built(tools: Path, output: Path, settings: Mapping[str, str], source: Path = _ROOT) -> list[Path]:
    """A wheel and, of the repository, an sdist; their times are those of the commit."""
    stamped = {**os.environ, **settings, "SOURCE_DATE_EPOCH": _git("log", "-1", "--format=%ct")}
    if source.is_file():
        command = ["pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(output), str(source)]
    else:
        command = ["build", "--outdir", str(output), str(source)]
    _run(tools / "python", "-m", *command, environment=stamped)
    return sorted(path for path in output.iterdir() if path.suffix in (".whl", ".gz"))


def _require_same_content(wheel: Path, other: Path) -> None:
    """What is built of the sdist has to be what is built of the repository."""
    if _content(wheel) != _content(other):
        raise RuntimeError(f"{other.name} of the sdist is not {wheel.name} of the repository")


def _content(wheel: Path) -> dict[str, int]:
    with zipfile.ZipFile(wheel) as file:
        return {info.filename: info.CRC for info in file.infolist()}


def _try(programs: Path, *, has_kernels: bool) -> None:
    """Every command says its version where only the base install is there, and an adapter is judged."""
    kernels = "from converter.evaluation.native import kernels; print(kernels() is not None)"
    if has_kernels and _run(programs / "python", "-I", "-c", kernels).strip() != "True":
        raise RuntimeError("the kernels of the wheel can't be loaded")
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for command in project["scripts"]:
        said = _run(programs / command, "--version")
        if __version__ not in said:
            raise RuntimeError(f"{command} --version says {said!r}, wanted {__version__}")
    check = [str(programs / "adapter-check"), "."]
    judged = subprocess.run(check, cwd=programs, check=False, capture_output=True, text=True)
    if judged.returncode != 3:
        raise RuntimeError(f"adapter-check of a directory without adapters: {judged}")


def _sums(paths: list[Path]) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _run(program: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [program, *arguments], cwd=program.parent, check=False, capture_output=True, text=True, env=environment
    )
    if done.returncode:
        sys.exit(f"{program.name} {' '.join(arguments)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _say(what: str) -> None:
    print(f"release: {what}", flush=True)


if __name__ == "__main__":
    main()
