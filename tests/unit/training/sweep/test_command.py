"""adapter-train --sweep as a program meets it: one line of JSON on stdout, all else on stderr."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from converter.cli import train
from converter.errors import COULD_NOT, FINE
from converter.training.settings import TrainingSettings
from converter.training.sweep import run as run_module
from converter.training.sweep import trained
from converter.training.sweep.run import SweepOutcome, sweep
from converter.training.watch import Watch
from tests.unit.schemas import faults
from tests.unit.training.sweep.fake_training import FakeTraining

PLAN = "[sweep]\nsampler = 'grid'\n[space]\nr = [16, 32]\nhead = ['none']\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    def fake(path: str, settings: TrainingSettings, watch: Watch) -> SweepOutcome:
        return sweep(path, settings, settings.output, FakeTraining(), watch, base_has_biases=False)

    monkeypatch.setattr(trained, "sweep_trainings", fake)
    monkeypatch.setattr(run_module, "html_report", lambda _results, advice: str(advice))  # plots take seconds
    monkeypatch.chdir(tmp_path)
    Path("sweep.toml").write_text(PLAN, encoding="utf-8")
    Path("data.jsonl").write_text('{"text": "one"}\n', encoding="utf-8")
    asked = ["--base", "base", "--data", "data.jsonl", "--output", "swept", "--sweep", "sweep.toml", "--format", "json"]
    return CliRunner().invoke(train.main, asked)


def test_a_sweep_ends_with_one_line_of_json(run: Result) -> None:
    assert run.exit_code == FINE, run.output
    assert run.stdout.count("\n") == 1
    told = json.loads(run.stdout)
    assert faults("training", told) == []
    assert Path(told["sweep"]["report"]).is_file()
    assert "r 16" in told["sweep"]["recommendation"]
    assert "Trial 2 of 2" in run.stderr
    assert told["sweep"]["recommendation"] in run.stderr


def test_a_sweep_that_cannot_be_is_json_too(run: Result) -> None:
    Path("sweep.toml").write_text("[space]\nranks = [16]\n", encoding="utf-8")
    asked = ["--base", "base", "--data", "data.jsonl", "--output", "swept", "--sweep", "sweep.toml", "--format", "json"]
    ran = CliRunner().invoke(train.main, asked)
    assert (run.exit_code, ran.exit_code) == (FINE, COULD_NOT)
    told = json.loads(ran.stdout)
    assert faults("ended", told) == []
    assert "ranks" in told["error"]["message"]
