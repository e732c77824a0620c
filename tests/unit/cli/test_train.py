"""adapter-train as its users meet it: one line for each mistake, the right status, and nothing left behind."""

import json
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from converter.cli import train
from converter.errors import COULD_NOT, FINE, JUDGED_BAD
from converter.training.settings import TrainingSettings
from fixtures.tiny import TinyModel
from fixtures.trainable import chats, trainable
from tests.unit.schemas import faults

BASE = TinyModel("llama")
SHORT = ("--max-steps", "2", "--warmup-ratio", "0", "--learning-rate", "0.02", "--r", "4", "--max-length", "128")
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the command on samples that are written first; what is not said is fine."""
    (tmp_path / "general.txt").write_text("The river rises in the hills.", encoding="utf-8")

    def of(*options: str, samples: str = chats(), base: Path | None = None) -> Result:
        (tmp_path / "data.jsonl").write_text(samples, encoding="utf-8")
        paths = ("--data", str(tmp_path / "data.jsonl"), "--output", str(tmp_path / "out"))
        given = ("--base", str(base or trainable(BASE)), "--general-text", str(tmp_path / "general.txt"))
        return CliRunner().invoke(train.main, [*given, *paths, *SHORT, *options])

    return of


def one_line(result: Result, tmp_path: Path, status: int = COULD_NOT) -> str:
    """The one line of a failure, behind those of its steps, after which nothing is left."""
    assert result.exit_code == status, result.output
    (line,) = (line for line in result.stderr.splitlines(keepends=True) if not line.startswith("training step "))
    assert line.startswith("adapter-train: ")
    assert not list(tmp_path.glob("out*"))
    return line


def without(tmp_path: Path, *names: str) -> Path:
    """The base without some files."""
    base = tmp_path / "base"
    shutil.copytree(trainable(BASE), base)
    for name in names:
        (base / name).unlink()
    return base


def test_every_setting_is_an_option() -> None:
    options = {option.name for option in train.main.params} - {"sweep", "config", "style", "version"}
    assert options == {field.name for field in fields(TrainingSettings)}


def test_a_run_tells_what_it_makes_and_what_came_out(run: Run, tmp_path: Path) -> None:
    result = run("--head", "lora")
    assert result.exit_code == FINE
    assert all(line.startswith("training step ") for line in result.stderr.splitlines())  # no bar in a pipe
    for words in ("--untie --to model  yes", "<- target", "no: HD001 lm-head-lora-on-tied-base", "forgetting", "next"):
        assert words in result.stdout
    assert (tmp_path / "out" / "adapter_config.json").is_file()


def test_the_settings_that_a_run_leaves_run_it_again(run: Run, tmp_path: Path) -> None:
    told = run("--use-rslora", "--seed", "5", "--format", "json")
    assert told.exit_code == FINE
    assert faults("training", json.loads(told.stdout)) == []
    again = ["--config", str(tmp_path / "out" / "train.toml"), "--output", str(tmp_path / "again")]
    assert CliRunner().invoke(train.main, again).exit_code == FINE
    first, second = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("out", "again"))
    assert first == second


def test_what_cannot_be_deployed_is_refused_with_its_report(run: Run, tmp_path: Path) -> None:
    result = run("--head", "full", "--target", "untie-lora")
    assert result.exit_code == JUDGED_BAD
    assert "error HD002 saved-lm-head-on-tied-base" in result.stderr
    assert result.stderr.endswith("refused for --untie --to lora: HD002\n")
    assert not list(tmp_path.glob("out*"))


def test_diverged(run: Run, tmp_path: Path) -> None:
    assert "loss is nan" in one_line(run("--learning-rate", "1e18", "--max-grad-norm", "1e18"), tmp_path, JUDGED_BAD)


def test_every_file_of_a_directory_is_told_and_reported(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    lines = chats().splitlines(keepends=True)
    (data / "a.jsonl").write_text("".join(lines[:12]), encoding="utf-8")
    (data / "b.json").write_text(f"[{','.join(lines[12:15])}]", encoding="utf-8")
    (data / "test.jsonl").write_text("".join(lines[15:]), encoding="utf-8")
    (data / "README.md").write_text("# Lamps", encoding="utf-8")
    result = run("--data", str(data))
    assert result.exit_code == FINE, result.output
    assert "15 samples to learn from, 5 held out" in result.stdout
    for line in (
        "a.jsonl: 12 samples",
        "b.json: 3 samples",
        "test.jsonl: 5 samples, to evaluate on",
        "no data: README",
    ):
        assert line in result.stdout
    report = json.loads((tmp_path / "out" / "training_report.json").read_text(encoding="utf-8"))
    assert [(Path(s["name"]).name, s["n_samples"], s["use"]) for s in report["data"]["sources"]] == [
        ("a.jsonl", 12, "train"),
        ("b.json", 3, "train"),
        ("test.jsonl", 5, "eval"),
    ]
    assert report["data"]["beside"] == ["README.md"]


def test_empty_data(run: Run, tmp_path: Path) -> None:
    assert "data.jsonl" in one_line(run(samples=""), tmp_path)


def test_over_long_samples(run: Run, tmp_path: Path) -> None:
    line = one_line(run("--max-length", "40"), tmp_path)
    assert "--max-length" in line
    assert "--overlong" in line


def test_longer_than_the_context(run: Run, tmp_path: Path) -> None:
    long = json.dumps({"prompt": "one ", "completion": "two " * 1000})
    line = one_line(run("--max-length", "100000", samples=f"{long}\n{long}\n"), tmp_path)
    assert "context" in line


def test_no_chat_template(run: Run, tmp_path: Path) -> None:
    base = without(tmp_path)
    (base / "tokenizer_config.json").write_text('{"eos_token": "<|end|>", "pad_token": "<|pad|>"}', encoding="utf-8")
    assert "--chat-template" in one_line(run(base=base), tmp_path)


def test_no_tokenizer(run: Run, tmp_path: Path) -> None:
    assert "has no tokenizer" in one_line(run(base=without(tmp_path, "tokenizer.json")), tmp_path)


def test_no_base(run: Run, tmp_path: Path) -> None:
    assert "nowhere" in one_line(run(base=tmp_path / "nowhere"), tmp_path)


def test_an_output_that_is_there(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    result = run()
    assert result.exit_code == COULD_NOT
    assert "is there already" in result.stderr
    assert not list((tmp_path / "out").iterdir())


def test_nothing_to_stop_early_by(run: Run, tmp_path: Path) -> None:
    line = one_line(run("--early-stopping-patience", "2", "--eval-split", "0"), tmp_path)
    assert "--eval-data" in line


def test_a_template_that_fails(run: Run, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{{ 'sea'.index('lamp') }}", encoding="utf-8")
    assert "template can't render it" in one_line(run("--chat-template", str(template)), tmp_path)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--learning-rate", "-1"),
        ("--weight-decay", "-1"),
        ("--max-grad-norm", "-1"),
        ("--num-train-epochs", "0"),
        ("--seed", "-1"),
    ],
)
def test_numbers_that_cannot_be(run: Run, tmp_path: Path, option: str, value: str) -> None:
    result = run(option, value)
    assert result.exit_code == COULD_NOT
    assert f"Invalid value for '{option}'" in result.stderr
    assert not list(tmp_path.glob("out*"))


def test_an_infinite_number_is_read_again(run: Run, tmp_path: Path) -> None:
    assert run("--max-grad-norm", "inf").exit_code == FINE
    again = ["--config", str(tmp_path / "out" / "train.toml"), "--output", str(tmp_path / "again")]
    assert CliRunner().invoke(train.main, again).exit_code == FINE


def test_batches_that_do_not_divide(run: Run, tmp_path: Path) -> None:
    assert "no multiple" in one_line(run("--batch-size", "5"), tmp_path)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--lora-alpha", "0"), "--lora-alpha"),
        (("--save-embedding-layers",), "--save-embedding-layers"),
        (("--head", "full", "--dtype", "bfloat16"), "--dtype bfloat16"),
        (("--bias", "all", "--dtype", "bfloat16"), "--dtype bfloat16"),
    ],
)
def test_settings_that_contradict_each_other(run: Run, tmp_path: Path, options: tuple[str, ...], named: str) -> None:
    assert named in one_line(run(*options), tmp_path)
