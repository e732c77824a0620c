import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from converter.checking import check_adapter
from converter.conversion import Refused
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import Deployment
from converter.errors import JUDGED_BAD, ConverterError
from converter.fingerprint import fingerprint
from converter.training import run, trainer
from converter.training.data import read_data, split_samples
from converter.training.report import TrainingReport
from converter.training.settings import HEADS, Head, TrainingSettings, working_directory
from converter.training.tokenised import tokenised
from converter.training.tokenizer import load_tokenizer
from converter.training.watch import Stopped, Unwatched
from converter.transformers_base import load_base, quiet, untie
from fixtures.tiny import TinyModel
from fixtures.trainable import trainable
from tests.unit.training.conftest import BASE, Watched

Settings = Callable[..., TrainingSettings]
Runs = Callable[[Head], tuple[TrainingSettings, TrainingReport]]


@pytest.fixture(scope="module")
def trained(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One run for each head."""
    directory = tmp_path_factory.mktemp("runs")
    done: dict[Head, tuple[TrainingSettings, TrainingReport]] = {}

    def of(head: Head) -> tuple[TrainingSettings, TrainingReport]:
        if head not in done:
            chosen = settings(output=directory / head, head=head)
            done[head] = chosen, run.train(chosen, Unwatched())
        return done[head]

    return of


def rows_of(directory: Path) -> list[Mapping[str, float]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def loaded(model: Any, adapter: Path) -> PeftModel:
    with quiet():
        return PeftModel.from_pretrained(model, str(adapter))


def mean_loss(model: Any, settings: TrainingSettings) -> float:
    """The loss of what is held out, computed by hand."""
    tokenizer = load_tokenizer(read_base_model(settings.base), None)
    _, held_out = split_samples(read_data(settings.data).learned, settings.eval_split)
    assert held_out
    total, n_tokens = 0.0, 0
    for sample in tokenised(held_out, tokenizer, settings).dataset:
        labels = torch.tensor(sample["labels"][1:])
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([sample["input_ids"]])).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        n_tokens += int((labels != -100).sum())
    return total / n_tokens


@pytest.mark.parametrize("head", HEADS)
def test_the_directory_holds_what_deployment_needs(trained: Runs, head: Head) -> None:
    settings, report = trained(head)
    assert {path.name for path in settings.output.iterdir()} == {
        *("adapter_config.json", "adapter_model.safetensors", "base_fingerprint.json", "training_report.json"),
        *("metrics.jsonl", "train.toml", "loss.png"),
    }
    assert not working_directory(settings.output).exists()
    base = read_base_model(settings.base)
    judged = check_adapter(read_adapter(settings.output), base, settings.deployment, values=True)
    assert judged.passed
    assert "base_fingerprint.json" in judged.base_checked_by
    written = json.loads((settings.output / "training_report.json").read_text(encoding="utf-8"))
    assert written["base"]["fingerprint"] == fingerprint(base)
    assert written["base"]["tie_word_embeddings"] is True
    assert written["head"] == {"choice": head, "untied": head in {"lora", "full"}}
    assert written["eval_loss"] == report.eval_loss
    assert report.libraries["peft"]


@pytest.mark.parametrize("head", HEADS)
def test_the_saved_adapter_is_what_was_trained(trained: Runs, head: Head) -> None:
    settings, report = trained(head)
    model = load_base(settings.base)
    assert mean_loss(model, settings) == pytest.approx(report.eval_loss_of_base, rel=1e-5)
    if report.head.untied:
        untie(model)
    assert mean_loss(loaded(model, settings.output), settings) == pytest.approx(report.eval_loss, rel=1e-4)
    assert report.eval_loss_of_base
    assert report.eval_loss
    assert report.eval_loss < 0.8 * report.eval_loss_of_base


@pytest.mark.parametrize("head", HEADS)
def test_the_deltas_are_where_the_head_says(trained: Runs, head: Head) -> None:
    settings, _ = trained(head)
    keys = {key for key in load_file(settings.output / "adapter_model.safetensors") if "layers" not in key}
    prefix = "base_model.model."
    a_and_b = {f"{prefix}lm_head.lora_A.weight", f"{prefix}lm_head.lora_B.weight"}
    embedding = {f"{prefix}model.embed_tokens.lora_embedding_{factor}" for factor in "AB"}
    wanted = {"none": set(), "lora": a_and_b, "full": {f"{prefix}lm_head.weight"}, "tied": a_and_b | embedding}
    assert keys == wanted[head]  # and no copy of the base's embedding


def test_the_first_loss_does_not_depend_on_the_head(trained: Runs) -> None:
    """Trials of different heads are compared: trl's own loss and the model's must be one."""
    firsts = [rows_of(trained(head)[0].output) for head in HEADS]
    for rows in firsts[1:]:
        assert rows[0]["eval_loss"] == pytest.approx(firsts[0][0]["eval_loss"], rel=1e-5)
        assert rows[1]["loss"] == pytest.approx(firsts[0][1]["loss"], rel=1e-5)


def test_trls_own_loss_passes_a_head_by(
    trained: Runs, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with it the head's LoRA stays what it was before the first step."""
    factor = "base_model.model.lm_head.lora_B.weight"
    assert load_file(trained("lora")[0].output / "adapter_model.safetensors")[factor].any()
    monkeypatch.delattr(trainer.AdapterTrainer, "compute_loss")
    report = run.train(settings(output=tmp_path / "a", head="lora"), Unwatched())
    assert not load_file(tmp_path / "a" / "adapter_model.safetensors")[factor].any()
    assert report.warnings == ("NM003",)


def test_a_head_that_the_target_cannot_have_stops_before_the_first_step(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "load_base", lambda *_: pytest.fail("the base was loaded"))
    watch = Watched()
    with pytest.raises(Refused) as refused:
        run.train(settings(output=tmp_path / "a", head="lora", target="lora"), watch)
    assert refused.value.report.blockers("lora") == ("HD001",)
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_no_number_ends_the_run(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match=r"loss is nan at step \d+: .*--learning-rate") as error:
        run.train(settings(output=tmp_path / "a", learning_rate=1e18, max_grad_norm=1e18), Unwatched())
    assert error.value.status == JUDGED_BAD
    assert not list(tmp_path.iterdir())


def test_biases_that_the_base_has_not_are_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match="no biases"):
        run.train(settings(output=tmp_path / "a", bias="lora_only", target="model"), Unwatched())


def test_a_tied_pair_needs_a_tied_base(settings: Settings, tmp_path: Path) -> None:
    base = trainable(TinyModel("llama", tied=False))
    with pytest.raises(ConverterError, match="not tied"):
        run.train(settings(output=tmp_path / "a", base=base, head="tied"), Unwatched())


def test_a_stopped_run_keeps_its_metrics_and_nothing_else(settings: Settings, tmp_path: Path) -> None:
    chosen = settings(output=tmp_path / "a", save_steps=2)
    with pytest.raises(Stopped) as stopped:
        run.train(chosen, Watched(until=3))
    assert stopped.value.step == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a.training"]
    names = {path.name for path in working_directory(chosen.output).iterdir()}
    assert names == {"metrics.jsonl", "train.toml"}
    losses = [row["eval_loss"] for row in rows_of(working_directory(chosen.output)) if "eval_loss" in row]
    assert losses[-1] == stopped.value.eval_loss


class Interrupting(Watched):
    def logged(self, step: int, values: Mapping[str, float]) -> None:
        if step == 5 and "loss" in values:
            raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_from_its_checkpoint(trained: Runs, settings: Settings, tmp_path: Path) -> None:
    chosen = settings(output=tmp_path / "a", head="lora", save_steps=2)
    with pytest.raises(KeyboardInterrupt):
        run.train(chosen, Interrupting())
    assert not chosen.output.exists()
    with pytest.raises(ConverterError, match="holds checkpoints"):
        run.train(chosen, Unwatched())
    with pytest.raises(ConverterError, match=r"begun with r = 4, now it is 8"):
        run.train(replace(chosen, resume=True, r=8), Unwatched())
    run.train(replace(chosen, resume=True), Unwatched())
    whole, _ = trained("lora")
    ours, theirs = (load_file(path / "adapter_model.safetensors") for path in (chosen.output, whole.output))
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-6) for key in ours)
    steps = [row["step"] for row in rows_of(chosen.output) if "loss" in row]
    assert steps == [1, 2, 3, 4, 5, 6]


class InterruptingAtTheEnd(Watched):
    def logged(self, step: int, values: Mapping[str, float]) -> None:
        del step
        if "train_runtime" in values:
            raise KeyboardInterrupt


@pytest.mark.parametrize("patience", [0, 1])
def test_a_run_that_was_interrupted_after_its_last_step_takes_no_more(
    settings: Settings, tmp_path: Path, patience: int
) -> None:
    chosen = settings(output=tmp_path / "a", save_steps=3, early_stopping_patience=patience)
    whole = replace(chosen, output=tmp_path / "whole")
    report = run.train(whole, Unwatched())
    with pytest.raises(KeyboardInterrupt):
        run.train(chosen, InterruptingAtTheEnd())
    resumed = run.train(replace(chosen, resume=True), Unwatched())
    assert (resumed.steps, resumed.train_loss) == (report.steps, report.train_loss)
    assert resumed.eval_loss == pytest.approx(report.eval_loss)
    ours, theirs = (load_file(path / "adapter_model.safetensors") for path in (chosen.output, whole.output))
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-6) for key in theirs)


def test_a_resumed_run_reports_all_of_its_course(settings: Settings, tmp_path: Path) -> None:
    chosen = settings(output=tmp_path / "a", save_steps=2)
    with pytest.raises(KeyboardInterrupt):
        run.train(chosen, Interrupting())
    report = run.train(replace(chosen, resume=True), Unwatched())
    rows = rows_of(chosen.output)
    assert [row["step"] for row in rows if "eval_loss" in row] == [0, 3, 6]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert report.train_loss == pytest.approx(sum(losses) / 6)


def test_a_checkpoint_that_a_kill_cut_off_is_passed_over(settings: Settings, tmp_path: Path) -> None:
    chosen = settings(output=tmp_path / "a", save_steps=2)
    with pytest.raises(KeyboardInterrupt):
        run.train(chosen, Interrupting())
    (working_directory(chosen.output) / "checkpoint-4" / "trainer_state.json").unlink()
    assert run.train(replace(chosen, resume=True), Unwatched()).steps == 6


def test_what_is_logged_seldom_is_logged_at_the_end(settings: Settings, tmp_path: Path) -> None:
    report = run.train(settings(output=tmp_path / "a", logging_steps=100, eval_split=0.0), Unwatched())
    assert [row["step"] for row in rows_of(tmp_path / "a") if "loss" in row] == [6]
    assert report.train_loss > 0


def test_what_is_known_of_the_base_changes_nothing(settings: Settings, tmp_path: Path) -> None:
    """A trial of a sweep, run again by its train.toml, is what it was."""
    chosen = settings(output=tmp_path / "a", lora_dropout=0.3)
    run.train(chosen, Unwatched())
    known = run.measured_base(chosen.output / "training_report.json")
    run.train(replace(chosen, output=tmp_path / "b"), Unwatched(), known)
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in "ab")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_without_a_checkpoint_there_is_nothing_to_resume(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match="no checkpoint"):
        run.train(settings(output=tmp_path / "a", resume=True), Unwatched())


def test_a_checkpoint_that_cannot_be_read_is_not_taken_for_none(settings: Settings, tmp_path: Path) -> None:
    output = tmp_path / "a"
    checkpoint = working_directory(output) / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").symlink_to("trainer_state.json")
    with pytest.raises(ConverterError, match="holds checkpoints; go on from them"):
        run.train(settings(output=output), Unwatched())
    with pytest.raises(ConverterError, match=r"trainer_state\.json: can't be read: Too many levels of symbolic links"):
        run.train(settings(output=output, resume=True), Unwatched())
    (checkpoint / "trainer_state.json").unlink()
    checkpoint.rmdir()
    checkpoint.symlink_to(checkpoint.name)
    with pytest.raises(ConverterError, match=r"checkpoint-1.*: can't be read: Too many levels of symbolic links"):
        run.train(settings(output=output), Unwatched())
    assert checkpoint.is_symlink()


def test_early_stopping_keeps_the_best(settings: Settings, tmp_path: Path) -> None:
    changes = {"max_steps": 60, "eval_steps": 2, "early_stopping_patience": 2, "learning_rate": 8e-2}
    chosen = settings(output=tmp_path / "a", head="lora", **changes)
    report = run.train(chosen, Unwatched())
    assert report.steps < 60
    losses = [row["eval_loss"] for row in rows_of(chosen.output) if "eval_loss" in row]
    assert report.eval_loss == pytest.approx(min(losses), rel=1e-5)
    model = load_base(chosen.base)
    untie(model)
    assert mean_loss(loaded(model, chosen.output), chosen) == pytest.approx(min(losses), rel=1e-4)


def test_packed_samples_do_not_see_each_other(settings: Settings, tmp_path: Path) -> None:
    """One step over all samples, in one pack or each by itself: the same loss and the same step."""
    common = {"max_steps": 1, "eval_split": 0.0, "overlong": "refuse"}
    apart = settings(output=tmp_path / "apart", batch_size=20, per_device_train_batch_size=20, **common)
    packed = settings(
        output=tmp_path / "packed", packing=True, max_length=2048, batch_size=1, per_device_train_batch_size=1, **common
    )
    reports = [run.train(chosen, Unwatched()) for chosen in (apart, packed)]
    assert reports[1].train_loss == pytest.approx(reports[0].train_loss, rel=1e-5)
    ours, theirs = (load_file(path / "adapter_model.safetensors") for path in (packed.output, apart.output))
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-4) for key in ours)


def test_fewer_at_a_time_change_nothing(settings: Settings, tmp_path: Path) -> None:
    reports = [
        run.train(settings(output=tmp_path / f"{n}", per_device_train_batch_size=n), Unwatched()) for n in (4, 2)
    ]
    assert reports[1].train_loss == pytest.approx(reports[0].train_loss, rel=1e-4)
    assert reports[1].eval_loss == pytest.approx(reports[0].eval_loss, rel=2e-2)  # a mean over batches


def test_bfloat16_and_gradient_checkpointing(settings: Settings, tmp_path: Path) -> None:
    plain = run.train(settings(output=tmp_path / "plain"), Unwatched())
    saving = {"bf16": True, "dtype": "bfloat16", "gradient_checkpointing": True}
    small = run.train(settings(output=tmp_path / "small", head="lora", **saving), Unwatched())
    assert small.eval_loss_of_base == pytest.approx(plain.eval_loss_of_base, rel=0.05)
    assert small.eval_loss
    assert small.eval_loss_of_base
    assert small.eval_loss < 0.9 * small.eval_loss_of_base
    dtypes = {tensor.dtype for tensor in load_file(tmp_path / "small" / "adapter_model.safetensors").values()}
    assert dtypes == {torch.float32}


def test_what_is_trained_whole_is_float32_by_itself(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of AdamW are smaller than BF16 resolves; a LoRA is FP32 whatever its base is."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    dtypes = [run.base_dtype(settings(**whole)) for whole in ({}, {"head": "lora"}, {"head": "full"}, {"bias": "all"})]
    assert dtypes == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]


def test_losses_are_those_of_the_tokens_alone(settings: Settings, tmp_path: Path) -> None:
    """No share of the routers' balance, which isn't trained."""
    chosen = settings(output=tmp_path / "a", base=trainable(TinyModel("qwen3moe")), max_steps=1)
    report = run.train(chosen, Unwatched())
    assert report.eval_loss_of_base == pytest.approx(mean_loss(load_base(chosen.base), chosen), rel=1e-6)


def test_a_single_step_is_none_of_warm_up(settings: Settings, tmp_path: Path) -> None:
    chosen = settings(output=tmp_path / "a", max_steps=1, warmup_ratio=0.03)
    run.train(chosen, Unwatched())
    rates = [row["learning_rate"] for row in rows_of(chosen.output) if "learning_rate" in row]
    assert rates == [chosen.learning_rate]


def test_a_warm_up_rises_for_its_share_of_the_steps(settings: Settings, tmp_path: Path) -> None:
    chosen = settings(output=tmp_path / "a", max_steps=8, warmup_ratio=0.3, logging_steps=1)
    run.train(chosen, Unwatched())
    rates = [row["learning_rate"] for row in rows_of(chosen.output) if "learning_rate" in row]
    assert [rate < chosen.learning_rate for rate in rates[:3]] == [True, True, False]


def test_that_no_expert_is_trained_is_said(settings: Settings, tmp_path: Path) -> None:
    watch = Watched()
    run.train(settings(output=tmp_path / "a", base=trainable(TinyModel("qwen3moe")), max_steps=1), watch)
    assert any("no expert is trained" in line for line in watch.lines)
    dense = Watched()
    run.train(settings(output=tmp_path / "b", max_steps=1), dense)
    assert not any("expert" in line for line in dense.lines)


def test_general_text_beyond_the_context_is_measured_in_parts(settings: Settings, tmp_path: Path) -> None:
    """GPT-2 has no positions beyond its context, and other models no sense."""
    text = tmp_path / "text.txt"
    text.write_text("bread and water " * 1000, encoding="utf-8")
    base = trainable(TinyModel("gpt2"))
    report = run.train(settings(output=tmp_path / "a", base=base, general_text=text, max_length=4096), Unwatched())
    assert report.perplexity.n_tokens > 1000


def test_a_directory_that_is_no_run_s_is_left_alone(settings: Settings, tmp_path: Path) -> None:
    foreign = tmp_path / "a.training"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConverterError, match=r"a\.training: is in the way"):
        run.train(settings(output=tmp_path / "a"), Unwatched())
    assert (foreign / "notes.txt").is_file()


def test_a_chat_template_of_its_own_goes_with_the_adapter(settings: Settings, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
                        "{% if add_generation_prompt %}assistant: {% endif %}", encoding="utf-8")  # fmt: skip
    chosen = settings(output=tmp_path / "a", chat_template=template, max_steps=1)
    report = run.train(chosen, Unwatched())
    assert "BM025" in report.warnings  # a LoRA GGUF leaves the template behind
    assert check_adapter(read_adapter(chosen.output), read_base_model(chosen.base), Deployment("model")).passed


def test_a_base_without_a_tokenizer_is_told(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match="has no tokenizer"):
        run.train(settings(output=tmp_path / "a", base=BASE.gguf), Unwatched())
    assert not list(tmp_path.iterdir())
