"""A run whose tests are killed ends by itself, fails, and says which they were and how each is run alone."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUITE = """
import os, pathlib, signal, time
import pytest

@pytest.mark.parametrize("number", range(8))
def test_one(number):
    time.sleep(0.1)
    once = pathlib.Path(__file__).with_name(f"{number}")
    if number in (2, 5) and not once.exists():
        once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_tests_that_are_killed_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    (tmp_path / "test_killed.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    ran = subprocess.run(
        [*command, "-p", "no:cacheprovider", "--numprocesses=2", "--dist=loadfile", str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
    )  # fmt: skip
    assert ran.returncode == 1
    for number in (2, 5):
        assert f"crashed while running 'test_killed.py::test_one[{number}]'" in ran.stdout
        assert f".venv/bin/pytest -n0 'test_killed.py::test_one[{number}]'" in ran.stdout
    assert "2 failed, 8 passed" in ran.stdout
