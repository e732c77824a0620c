"""constraints.txt and hashes/ are of one resolution; what is pinned has hashes, or is on the list of what has none."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from converter.version import __version__

ROOT = Path(__file__).parents[2]
HASHES = ROOT / "hashes"
# torch differs by machine; llama-cpp-python is compiled where it can be, and diskcache is its dependency.
WITHOUT_HASHES = {"torch", "llama-cpp-python", "diskcache"}
# Of Windows, and of Python in a browser: a freeze on Linux lists neither.
OF_OTHER_PLATFORMS = {"colorama", "httpx2-jsfetch"}


def pins(path: Path) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def test_every_pin_has_hashes() -> None:
    hashed = {name: version for path in HASHES.glob("*.txt") for name, version in pins(path).items()}
    pinned = pins(ROOT / "constraints.txt")
    assert {name: hashed.get(name) for name in pinned.keys() - WITHOUT_HASHES} == {
        name: version for name, version in pinned.items() if name not in WITHOUT_HASHES
    }
    assert hashed.keys() - pinned.keys() == OF_OTHER_PLATFORMS


@pytest.mark.parametrize("path", sorted(HASHES.glob("*.txt")), ids=lambda path: path.stem)
def test_every_requirement_has_hashes(path: Path) -> None:
    """Pip takes --require-hashes from a single one: a line that was added by hand would end every installation."""
    requirements = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    assert requirements
    for line in requirements:
        assert re.fullmatch(r"[\w.-]+==\S+ +(; .+? )?(\s*--hash=sha256:[0-9a-f]{64}\s*)+", line), line


def test_what_is_declared_is_hashed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for name, wanted in (
        ("gate", []),
        ("hub", extras["hub"]),
        ("buckets", extras["buckets"]),
        ("verify", extras["verify"]),
        ("train", extras["train"]),
        ("fleet", extras["fleet"]),
    ):
        declared = {canonicalize_name(re.split(r"[<>=;\s]", line)[0]) for line in (*project["dependencies"], *wanted)}
        assert declared - {"torch"} <= pins(HASHES / f"{name}.txt").keys()


def test_every_image_is_named_by_its_digest() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", dockerfile, re.MULTILINE))
    images = set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) - stages
    assert images == {"${PYTHON}"}
    (python,) = re.findall(r"^ARG PYTHON=(\S+)$", dockerfile, re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64}", python)


def test_the_version_is_what_hatchling_reads() -> None:
    """Its pattern: hatchling/version/core.py, DEFAULT_PATTERN."""
    path = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["version"]["path"]
    pattern = r'^(__version__|VERSION)(?: ?\: ?str)? *= *([\'"])v?(?P<version>.+?)\2'
    found = re.search(pattern, (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE | re.IGNORECASE)
    assert found
    assert found["version"] == __version__
