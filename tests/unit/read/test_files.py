"""What is opened, and what is said of what isn't: nothing here may wait or run on."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from converter.errors import COULD_NOT, ConverterError
from converter.read.files import Unreadable, exists, is_file, open_regular, read_bytes, read_into, read_whole


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


ODD: dict[str, Callable[[Path], object]] = {
    "a named pipe": os.mkfifo,
    "a directory": os.mkdir,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    ODD[kind](path)
    for read in (open_regular, lambda path: read_whole(path, 10)):
        with pytest.raises(Unreadable, match=f"is {kind}, wanted a file"):
            read(path)
    with pytest.raises(ConverterError, match=f"is {kind}, wanted a file") as caught:
        read_bytes(path, 0, 1)
    assert caught.value.status == COULD_NOT
    assert (is_file(path), exists(path)) == (False, True)


def test_links_to_files_are_files(tmp_path: Path) -> None:
    """The hub's cache is made of them."""
    (tmp_path / "blob").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("blob")
    assert read_whole(tmp_path / "link", 5) == b"12345"
    assert read_bytes(tmp_path / "link", 1, 3) == b"234"


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_whole(path, 5) == b"12345"
    with pytest.raises(Unreadable, match=r"has 5 bytes \(at most 4\)"):
        read_whole(path, 4)


@pytest.mark.parametrize(("offset", "nbytes"), [(0, 6), (5, 1), (3, 1 << 62), (1 << 62, 1 << 62)])
def test_an_end_before_time_is_one_error(offset: int, nbytes: int, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    with pytest.raises(ConverterError, match="ended while it was read; it is truncated or changing") as caught:
        read_bytes(path, offset, nbytes)
    assert caught.value.status == COULD_NOT
    if nbytes < 10:
        with pytest.raises(ConverterError, match="ended while it was read"):
            read_into(path, offset, memoryview(bytearray(nbytes)))


def test_a_name_that_can_be_none_is_none(tmp_path: Path) -> None:
    for name in ("a" * 5000, "a\0b"):
        assert not is_file(tmp_path / name)
        assert not exists(tmp_path / name)
        with pytest.raises((Unreadable, OSError)):
            open_regular(tmp_path / name)
