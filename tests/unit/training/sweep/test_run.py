"""How a sweep runs, is killed, goes on and ends, with a training that takes no time."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from converter.errors import ConverterError
from converter.training.settings import TrainingSettings
from converter.training.sweep import run as run_module
from converter.training.sweep.run import SweepOutcome, sweep
from converter.training.sweep.space import Values
from converter.training.sweep.study import Search, open_study, values_of
from converter.training.watch import Unwatched
from tests.unit.training.sweep import fake_training
from tests.unit.training.sweep.fake_training import FakeTraining, settings

SEARCH = """
[sweep]
n_trials = 9
[space]
r = [16, 32, 64]
lora_dropout = [0.05, 0.1]
head = ["none", "lora"]
seed = [0, 1]
"""
GRID = """
[sweep]
sampler = "grid"
pruner = "none"
[space]
r = [16, 32]
head = ["none", "lora"]
"""


@pytest.fixture(autouse=True)
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are looked at elsewhere; after each of a hundred trials they take a minute."""
    monkeypatch.setattr(run_module, "html_report", lambda _results, advice: str(advice))


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.toml"
    path.write_text(SEARCH)
    return path


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepOutcome]:
    """The plan of a sweep that ran to its end, and what came of it; read only."""
    plan = tmp_path_factory.mktemp("ended") / "sweep.toml"
    plan.write_text(SEARCH)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "html_report", lambda _results, advice: str(advice))
        return plan, run(plan)


def run(plan: Path, training: FakeTraining | None = None, shared: TrainingSettings | None = None) -> SweepOutcome:
    shared = shared or settings(plan.parent)
    directory = plan.parent / "sweep"
    return sweep(str(plan), shared, directory, training or FakeTraining(), Unwatched(), base_has_biases=False)


def worker(plan: Path, seconds: float) -> subprocess.Popen[bytes]:
    settings(plan.parent)  # the data, before two workers look for it
    command = [
        sys.executable,
        "-m",
        "tests.unit.training.sweep.worker",
        str(plan),
        str(plan.parent / "sweep"),
        str(seconds),
    ]
    return subprocess.Popen(command)


def tried(outcome: SweepOutcome) -> list[Values]:
    return [result.values for result in outcome.results]


def test_anchors_come_first_and_the_best_of_each_head_is_repeated_last(ended: tuple[Path, SweepOutcome]) -> None:
    values = tried(ended[1])
    assert len(values) == len(set(values)) == 9
    assert [(one.r, one.head) for one in values[:6]] == [(r, head) for r in (16, 32, 64) for head in ("none", "lora")]
    assert [one.seed for one in values] == [0] * 7 + [1] * 2
    assert [(one.r, one.lora_dropout, one.head) for one in values[-2:]] == [(64, 0.05, "none"), (64, 0.05, "lora")]


def test_every_trial_is_a_normal_run_with_its_own_settings(ended: tuple[Path, SweepOutcome]) -> None:
    for result in ended[1].results:
        assert result.directory.name == f"{result.number:04}"
        assert result.settings["output"] == str(result.directory)
        assert (result.settings["r"], result.settings["seed"]) == (result.values.r, result.values.seed)
        if result.state == "completed":
            assert (result.directory / "adapter_model.safetensors").is_file()


def test_a_grid_runs_every_combination_once(plan: Path) -> None:
    plan.write_text(GRID)
    assert sorted((one.r, one.head) for one in tried(run(plan))) == [
        (r, head) for r in (16, 32) for head in ("lora", "none")
    ]


def test_a_small_space_ends_when_all_is_tried(plan: Path) -> None:
    plan.write_text("[sweep]\nn_trials = 50\n[space]\nr = [16, 32]\nlora_dropout = [0.05, 0.1]\n")
    assert len(set(tried(run(plan)))) == len(tried(run(plan))) == 4


def test_what_a_list_demands_is_tried_only_where_it_can_be(plan: Path) -> None:
    plan.write_text(
        "[space]\nr = [16, 64]\nuse_rslora = [true]\nrslora_from_r = 64\nlora_bias = [true]\nhead = ['none', 'lora']\n"
    )
    assert {(one.r, one.head, one.use_rslora, one.lora_bias) for one in tried(run(plan))} == {
        (16, "none", False, True),
        (16, "lora", False, False),
        (64, "none", True, True),
        (64, "lora", True, False),
    }


def test_a_sweep_that_ended_runs_nothing_more_and_one_with_more_trials_goes_on(plan: Path) -> None:
    plan.write_text("[sweep]\nn_trials = 4\n[space]\nr = [16, 32]\nlora_dropout = [0.05, 0.1, 0.2]\nseed = [0, 1]\n")
    first = tried(run(plan))
    assert tried(run(plan)) == first
    plan.write_text(plan.read_text().replace("n_trials = 4", "n_trials = 6"))
    more = tried(run(plan))
    assert more[:4] == first
    assert len(set(more)) == 6
    assert sorted(one.seed for one in more) == [0, 0, 0, 0, 0, 1]


def test_a_killed_sweep_goes_on(plan: Path) -> None:
    """Finished trials stay as they are; the setting of the dead one is run again, once, from the start."""
    trials = plan.parent / "sweep" / "trials"
    dying = worker(plan, 0.05)
    until((trials / "0002.training" / "metrics.jsonl").exists)
    dying.send_signal(signal.SIGKILL)
    dying.wait()
    before = contents(trials / "0000") | contents(trials / "0001")
    killed = values_of(open_study(plan.parent / "sweep").get_trials()[2])

    outcome = run(plan)
    assert len(tried(outcome)) == len(set(tried(outcome))) == 9
    assert killed in tried(outcome)
    assert {result.state for result in outcome.results} <= {"completed", "pruned"}
    assert 2 not in [result.number for result in outcome.results]
    assert not (trials / "0002.training").exists()
    assert contents(trials / "0000") | contents(trials / "0001") == before


def test_what_the_sampler_drew_is_run_again_too_when_it_was_killed(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = plan.parent / "sweep" / "trials"
    dying = worker(plan, 0.03)
    until((trials / "0006.training").exists)
    dying.send_signal(signal.SIGKILL)
    dying.wait()
    killed = values_of(open_study(plan.parent / "sweep").get_trials()[6])
    # The seed of a draw is how many were tried: the sampler would draw it again, if no other worker went on.
    monkeypatch.setattr(Search, "_draws", lambda *_: ())
    again = run(plan).results[6]
    assert (again.number, again.values) == (7, killed)


def test_two_workers_share_one_sweep(plan: Path) -> None:
    workers = [worker(plan, 0.02), worker(plan, 0.02)]
    assert [one.wait() for one in workers] == [0, 0]
    outcome = run(plan, FakeTraining(fails=16))  # it would fail if it ran anything
    assert len(tried(outcome)) == len(set(tried(outcome))) == 9
    assert {result.state for result in outcome.results} <= {"completed", "pruned"}


def test_a_trial_that_another_process_runs_is_left_to_it(plan: Path) -> None:
    other = worker(plan, 1)
    until((plan.parent / "sweep" / "trials" / "0000.training").exists)
    plan.write_text(SEARCH.replace("n_trials = 9", "n_trials = 2"))
    try:
        assert [result.state for result in run(plan).results] == ["running", "completed"]
    finally:
        other.kill()
        other.wait()


def test_the_pruner_ends_what_lies_behind(plan: Path) -> None:
    plan.write_text(
        "[sweep]\nn_trials = 8\n[space]\nr = [16, 64]\nlora_dropout = [0.05, 0.5, 0.7]\nhead = ['none', 'lora']\n"
    )
    results = run(plan).results
    pruned = [result for result in results if result.state == "pruned"]
    assert pruned
    assert all(result.values.lora_dropout > 0.05 for result in pruned)
    assert all(result.curve[-1][0] == result.steps < 6 and result.eval_loss == result.curve[-1][1] for result in pruned)
    assert not any(result.directory.exists() for result in pruned)


def test_the_main_comparison_runs_to_its_end_however_far_behind_it_lies(
    plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_training, "loss_of", lambda run: 1 + run.r / 100)
    plan.write_text("[sweep]\nn_trials = 6\n[space]\nr = [16, 32, 64]\nhead = ['none', 'lora']\n")
    assert {result.state for result in run(plan).results} == {"completed"}


def test_no_pruner_ends_nothing(plan: Path) -> None:
    plan.write_text("[sweep]\npruner = 'none'\n[space]\nlora_dropout = [0.05, 0.1, 0.2, 0.3, 0.5, 0.7]\n")
    assert {result.state for result in run(plan).results} == {"completed"}


def test_a_trial_that_fails_is_noted_and_the_sweep_goes_on(plan: Path) -> None:
    plan.write_text("[space]\nr = [16, 32, 64]\n")
    results = run(plan, FakeTraining(fails=32)).results
    assert [result.state for result in results] == ["completed", "failed", "completed"]
    assert results[1].reason == "out of memory at r 32"


def test_three_failures_and_nothing_else_end_it(plan: Path) -> None:
    plan.write_text("[space]\nr = [16]\nlora_dropout = [0.05, 0.1, 0.2, 0.3]\n")
    with pytest.raises(ConverterError, match="all 3 trials failed, the last one with: out of memory at r 16"):
        run(plan, FakeTraining(fails=16))
    assert "out of memory at r 16" in (plan.parent / "sweep" / "report.html").read_text()


def test_another_sweep_is_refused(plan: Path) -> None:
    plan.write_text("[sweep]\nn_trials = 1\n[space]\nlora_dropout = [0.05, 0.1]\n")
    run(plan)
    shared = settings(plan.parent)
    refused(plan, replace(shared, base=Path("another")), r'with base "base", not "another"; give another directory')
    refused(plan, replace(shared, max_length=7), r"with max_length 1024, not 7")
    plan.write_text(plan.read_text().replace("0.1]", "0.2]"))
    refused(plan, shared, r"with lora_dropout \[0.05, 0.1\], not \[0.05, 0.2\]")
    Path(shared.data).write_text("{}\n")
    refused(plan, shared, r"with data \(SHA-256\)")


def test_nothing_to_compare_by_is_refused(plan: Path) -> None:
    refused(plan, settings(plan.parent, eval_split=0.0), "a sweep compares eval losses")


def test_several_processes_for_one_trial_are_refused(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(plan, settings(plan.parent), "start the same command twice")


def test_optuna_says_nothing(plan: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan.write_text("[sweep]\nn_trials = 2\n[space]\nlora_dropout = [0.05, 0.1]\n")
    run(plan)
    assert capfd.readouterr() == ("", "")


def refused(plan: Path, shared: TrainingSettings, message: str) -> None:
    with pytest.raises(ConverterError, match=message):
        run(plan, shared=shared)


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def contents(directory: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.iterdir()}
