"""A private directory goes at every end of a process; after a kill, when the next one is made in its place."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from converter.errors import ConverterError
from converter.scratch import Scratch

HOLD = """
import sys
from pathlib import Path
from converter.scratch import Scratch
scratch = Scratch(Path(sys.argv[1]))
(scratch.path / "file").write_text("half")
print("held", flush=True)
sys.stdin.readline()
"""


def holder(place: Path) -> "subprocess.Popen[str]":
    """A process that has a directory in ``place``, until it reads a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_it_is_private_and_goes_when_it_is_closed(tmp_path: Path) -> None:
    with Scratch(tmp_path) as scratch:
        assert stat.S_IMODE(scratch.path.stat().st_mode) == 0o700
        (scratch.path / "below").mkdir()
        (scratch.path / "below" / "file").touch()
    assert names(tmp_path) == []
    scratch.close()


def test_it_goes_when_it_is_forgotten(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    del scratch
    assert names(tmp_path) == []


def test_it_goes_with_the_process(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.communicate("\n")
    assert process.returncode == 0
    assert names(tmp_path) == []


def test_that_of_a_killed_process_goes_with_the_next_one(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.kill()
    process.communicate()
    assert len(names(tmp_path)) == 1
    with Scratch(tmp_path) as scratch:
        assert names(tmp_path) == [scratch.path.name]
    assert names(tmp_path) == []


def test_that_of_a_running_process_stays(tmp_path: Path) -> None:
    process = holder(tmp_path)
    (held,) = tmp_path.iterdir()
    Scratch(tmp_path).close()
    assert names(held) == ["file"]
    process.communicate("\n")
    assert names(tmp_path) == []


def test_nothing_else_goes(tmp_path: Path) -> None:
    """A link of the same name leads anywhere; a directory of somebody else's may look alike."""
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    (place / ".adapter-scratch-link").symlink_to(elsewhere)
    (place / ".adapter-scratch-file").touch()
    (place / "other").mkdir()
    before = names(place)
    Scratch(place).close()
    assert names(place) == before
    assert names(elsewhere) == ["file"]


def test_no_room_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match="nowhere: can't be written: No such file or directory"):
        Scratch(tmp_path / "nowhere")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what is another's")
def test_another_users_stays(tmp_path: Path) -> None:
    others = tmp_path / ".adapter-scratch-others"
    others.mkdir()
    os.chown(others, 65534, 65534)
    Scratch(tmp_path).close()
    assert names(tmp_path) == [others.name]
