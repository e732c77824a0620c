"""Command lines and what they print: each case is a directory with args, stdout, stderr and status.

``UPDATE_GOLDEN=1 pytest tests/golden`` writes what the commands print now; read the diff before you commit it.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden.inputs import write_inputs

HERE = Path(__file__).parent
CASES = sorted(path.parent for path in HERE.glob("*/*/args"))
MODULES = {"adapter-check": "check", "adapter-to-gguf": "to_gguf"}


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("golden")
    write_inputs(root)
    return root


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}-{case.name}")
def test_golden(case: Path, inputs: Path) -> None:
    command = case.parent.name
    run = f"from converter.cli.{MODULES[command]} import main; main(prog_name='{command}')"
    arguments = shlex.split((case / "args").read_text(encoding="utf-8"))
    environment = os.environ | {"COLUMNS": "100", "HF_HUB_CACHE": str(inputs / "hub"), "PYTHONUTF8": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", run, *arguments],
        cwd=inputs, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = {"stdout": ran.stdout, "stderr": ran.stderr, "status": f"{ran.returncode}\n"}
    if os.environ.get("UPDATE_GOLDEN"):
        for name, text in found.items():
            (case / name).write_text(text, encoding="utf-8")
    assert found == {name: (case / name).read_text(encoding="utf-8") for name in found}
