"""A file appears whole or not at all, by either way of writing it."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from converter.errors import COULD_NOT, ConverterError
from converter.writing.whole_file import whole_file, whole_files

WAYS = ["nameless", "temporary"]


@pytest.fixture(params=WAYS, autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """On Linux a file without a name; elsewhere, and in file systems that know no such thing, a temporary one."""
    if request.param == "temporary":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    return str(request.param)


def write(path: Path, data: bytes = b"new") -> None:
    with whole_file(path) as file:
        file.write(data)


def fail(path: Path, error: BaseException | type[BaseException]) -> None:
    with whole_file(path) as file:
        file.write(b"half")
        raise error


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def test_a_file_is_written(tmp_path: Path) -> None:
    write(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_a_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old and longer")
    write(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_a_file_has_the_umasks_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "file")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o664])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "file").chmod(mode)
    write(tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("name", ["pipe", "directory", "/dev/null", "/dev/stdout"])
def test_what_is_no_plain_file_is_not_replaced(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    before = (tmp_path / name).lstat().st_ino
    with pytest.raises(ConverterError, match=r"is a directory|is no plain file"):
        write(tmp_path / name)
    assert (tmp_path / name).lstat().st_ino == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ConverterError("it can't be done"), ValueError])
def test_an_exception_leaves_what_was_there(error: BaseException | type[BaseException], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    expected = error if isinstance(error, type) else type(error)
    with pytest.raises(expected):
        fail(tmp_path / "file", error)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_while_it_is_written_nothing_has_its_name(tmp_path: Path) -> None:
    with whole_file(tmp_path / "file") as file:
        file.write(b"half")
        file.flush()
        assert not (tmp_path / "file").exists()


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConverterError) as refused:
        fail(tmp_path / "file", OSError(errno.ENOSPC, "No space left on device"))
    message = f"{tmp_path / 'file'}: can't be written: No space left on device; nothing was left behind"
    assert (refused.value.message, refused.value.status) == (message, COULD_NOT)
    assert names(tmp_path) == []


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match="is a directory; give a file name with -o"):
        write(tmp_path)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match="gone/file: can't be written: No such file or directory"):
        write(tmp_path / "gone" / "file")


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL, errno.EISDIR])
def test_a_file_system_without_nameless_files(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if hasattr(os, "O_TMPFILE") and flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, "not here")
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    write(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["näme.gguf", "a b.gguf", "-o.gguf", "x" * 200])
def test_any_name_will_do(name: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    write(tmp_path / name)
    assert names(tmp_path) == [name]


def test_a_bare_name_lies_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("file"))
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_link_is_replaced_by_the_file(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    write(tmp_path / "link")
    assert (tmp_path / "target").read_bytes() == b"old"
    assert (tmp_path / "link").read_bytes() == b"new"


KILLED = """
import os, sys
from pathlib import Path
from converter.writing.whole_file import whole_file
vars(os).pop("O_TMPFILE", None)
with whole_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.write(1, b"half")
    sys.stdin.read()
"""


def test_what_a_killed_process_left_goes_with_the_next_file(tmp_path: Path) -> None:
    """A running one's stays: two write one file, and the last one wins whole."""
    (tmp_path / ".mine.partial").touch()
    (tmp_path / "file").touch()
    command = [sys.executable, "-c", KILLED, str(tmp_path / "file")]
    killed, running = (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    )
    assert [process.stdout and process.stdout.read(4) for process in (killed, running)] == ["half"] * 2
    killed.kill()
    killed.communicate()
    assert len(names(tmp_path)) == 4
    write(tmp_path / "file")
    assert len(names(tmp_path)) == 3
    assert (tmp_path / "file").read_bytes() == b"new"
    running.communicate("")
    assert (tmp_path / "file").read_bytes() == b"half"
    assert sorted(names(tmp_path)) == [".mine.partial", "file"]


# --- Several ----------------------------------------------------------------------------------------------------------


def write_several(directory: Path, at_the_end: Callable[[], object] = lambda: None) -> None:
    with whole_files([directory / name for name in "abc"]) as files:
        for number, file in enumerate(files):
            file.write(b"new %d" % number)
        at_the_end()


def test_several_files_are_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o600)
    write_several(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a": b"new 0",
        "b": b"new 1",
        "c": b"new 2",
    }
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_several_files_are_none_where_writing_fails(error: BaseException, tmp_path: Path) -> None:
    for name in "ac":
        (tmp_path / name).write_bytes(b"old")
    with pytest.raises((type(error), ConverterError)):
        write_several(tmp_path, Mock(side_effect=error))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old", "c": b"old"}


def test_several_files_are_none_where_one_gets_no_name(tmp_path: Path) -> None:
    """A directory came into the place of the second while they were written: the third has its name by then."""
    with pytest.raises(ConverterError, match="b: can't be written"):
        write_several(tmp_path, (tmp_path / "b").mkdir)
    assert names(tmp_path) == ["b"]
