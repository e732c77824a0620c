"""What people bring is opened in one place: any other call would wait on a pipe, or read a device without end."""

import ast
from collections.abc import Iterator
from pathlib import Path

import converter

PACKAGE = Path(converter.__file__).parent
LAYERS = (
    "read",
    "derive",
    "fleet",
    "hub",
    "rules",
    "values",
    "planning",
    "evaluation",
    "writing",
    "conversion",
    "sources.py",
    "checking.py",
    "digests.py",
    "fingerprint.py",
    "policy.py",
    "matching",
    "training",
    "through_peft",
    "verification",
    "report",
    "targets",
    "cli",
)
MAY = {
    "read/files.py",  # the one place
    "hub/fetching.py",  # and bucket.py: write what they fetched
    "hub/bucket.py",
    "hub/bucket_cache.py",  # looks at its own cache
    "hub/uploads.py",  # sends what was written here
    "read/pickles.py",  # entries of an archive that was opened there
    "writing/whole_file.py",  # opens what it writes
    "training/data_rows.py",  # unpacks what was opened there
    "training/trainer.py",  # and planned.py: open what they write
    "training/planned.py",
    "cli/command.py",  # /dev/null
    "verification/llama_cpp.py",  # what its own child wrote
    "verification/streamed_base.py",  # and the next two: numbers behind a header that was read there
    "verification/gguf_weights.py",
    "verification/stored_weights.py",
}
ASKS = {"training", "through_peft", "verification", "cli", "report"}  # their users' own words: Path.is_file may raise
CALLS = {"open", "read_text", "read_bytes", "fromfile", "memmap", "is_file"}


def sources() -> Iterator[Path]:
    for layer in LAYERS:
        yield from sorted((PACKAGE / layer).rglob("*.py")) or [PACKAGE / layer]


def opening_calls(source: str) -> list[str]:
    """Calls that open a file by a path, other than one of our own package's data."""
    calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [
        ast.unparse(call)
        for call in calls
        if (isinstance(call, ast.Attribute) and call.attr in CALLS)
        or (isinstance(call, ast.Name) and call.id == "open")
        if not ast.unparse(call).startswith(("Path(__file__)", "files("))
    ]


def test_an_opening_call_is_seen() -> None:
    assert opening_calls("open(p)\npath.open('rb')\n(a / b).read_bytes()\nnp.fromfile(p)\np.is_file()") == [
        "open", "path.open", "(a / b).read_bytes", "np.fromfile", "p.is_file",
    ]  # fmt: skip
    assert opening_calls("read_bytes(p, 0, 1)\nPath(__file__).with_name('x').read_text()\nis_file(p)") == []


def test_what_people_bring_is_opened_in_one_place() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix(): opening_calls(path.read_text(encoding="utf-8")) for path in sources()
    }
    for name, calls in found.items():
        if name.partition("/")[0] in ASKS:
            calls[:] = [call for call in calls if not call.endswith(".is_file")]
    assert len(found) > 100
    assert {name: calls for name, calls in found.items() if calls and name not in MAY} == {}
    assert found["read/files.py"]
