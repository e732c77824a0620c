"""What is compiled: as much as it pays for, where libggml can be followed."""

import platform
import subprocess
import sys

import pytest

from converter.evaluation.compiled import NOTHING, WORTH_MERGING, WORTH_QUANTISING, compiled

kernels = pytest.importorskip("converter.evaluation.kernels", reason="needs numba (the extra fast)")


@pytest.fixture(autouse=True)
def _is_x86_64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def test_what_is_worth_it_is_compiled() -> None:
    found = compiled(WORTH_MERGING, {"Q4_K": WORTH_QUANTISING["Q4_K"], "Q6_K": 1, "Q3_K": 1 << 40})
    assert found.merging
    assert set(found.quantisers) == {"Q4_K"}


def test_little_is_not() -> None:
    assert compiled(WORTH_MERGING - 1, {name: n - 1 for name, n in WORTH_QUANTISING.items()}) is NOTHING


def test_where_nothing_is_kept_only_more_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "IS_KEPT", False)
    assert compiled(WORTH_MERGING, WORTH_QUANTISING) == NOTHING
    found = compiled(16 * WORTH_MERGING, {name: 16 * n for name, n in WORTH_QUANTISING.items()})
    assert found.merging
    assert set(found.quantisers) == set(WORTH_QUANTISING)


def test_elsewhere_libggml_itself_quantises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    found = compiled(WORTH_MERGING, WORTH_QUANTISING)
    assert found.merging
    assert not found.quantisers


def test_numba_can_be_told_not_to() -> None:
    program = (
        "import os; os.environ['NUMBA_DISABLE_JIT'] = '1'\n"
        "from converter.evaluation.compiled import NOTHING, compiled\n"
        "assert compiled(1 << 40, {'Q4_K': 1 << 40}) is NOTHING"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
