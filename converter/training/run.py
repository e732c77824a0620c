"""One training run: read, judge, train, measure, save, judge again."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import PartialState
from transformers import EarlyStoppingCallback, PreTrainedTokenizerBase, set_seed
from transformers.trainer_callback import PrinterCallback

from converter.derive.base_model import BaseModel, read_base_model
from converter.diagnostics import Finding, Severity
from converter.errors import ConverterError
from converter.fingerprint import fingerprint
from converter.read.files import read_text
from converter.read.limits import METRICS_NBYTES
from converter.report.printable import printable
from converter.training.data import Read, read_data, split_samples
from converter.training.failures import clear_failures
from converter.training.forgetting import Perplexity, general_texts, perplexity
from converter.training.head import attach, ends_digest
from converter.training.loss_curve import write_loss_curve
from converter.training.planned import Planned, judge_planned
from converter.training.report import (
    Base,
    Data,
    GeneralText,
    Head,
    TrainingReport,
    common_facts,
    mean_of_last,
    write_report,
)
from converter.training.samples import Sample
from converter.training.saved import (
    METRICS_NAME,
    SETTINGS_NAME,
    checkpoints,
    judge_saved,
    read_metrics,
    refuse_taken,
    working,
    write_adapter,
    write_record,
)
from converter.training.settings import TrainingSettings, check_settings, working_directory
from converter.training.summary import lines_before
from converter.training.tokenised import Tokenised, tokenised
from converter.training.tokenizer import load_tokenizer
from converter.training.trainer import AdapterTrainer, Metrics, trainer_config
from converter.training.watch import Stopped, Watch
from converter.transformers_base import load_base, load_config, quiet


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What is known before the first step."""

    base: BaseModel
    tokenizer: PreTrainedTokenizerBase
    learned: Tokenised
    held_out: Tokenised | None
    general: tuple[str, ...]
    planned: Planned
    read: Read

    @property
    def data(self) -> Data:
        both = [part for part in (self.learned, self.held_out) if part]
        return Data(
            n_train=len(self.learned.dataset),
            n_eval=len(self.held_out.dataset) if self.held_out else 0,
            n_dropped=sum(part.n_dropped for part in both),
            n_truncated=sum(part.n_truncated for part in both),
            longest=max(part.longest for part in both),
            sources=self.read.sources,
            beside=self.read.beside,
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """What is measured before and after: the loss of what is held out (None: nothing is), and of general text."""

    eval_loss: float | None
    general: Perplexity


def measured_base(report: Path) -> Measured:
    """What a run measured of its base, from its training report."""
    try:
        known = json.loads(read_text(report, METRICS_NBYTES))
        general = known["perplexity"]
        return Measured(known["eval_loss_of_base"], Perplexity(float(general["base"]), int(general["n_tokens"])))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConverterError(f"{report}: is no training report: {error}; delete its directory") from error


def train(settings: TrainingSettings, watch: Watch, base: Measured | None = None) -> TrainingReport:
    """Train an adapter and save it at ``settings.output``. ``base`` is what is known of the base on the same data.

    Raises Refused where the gate closes, before the first step or after the last; Stopped where the watch ended the
    run; ConverterError for all else that a user can cause. Nothing is at ``settings.output`` then.
    """
    began = time.monotonic()
    check_settings(settings)
    refuse_taken(settings.output)
    with clear_failures(settings):
        prepared = _prepare(settings)
        for line in lines_before(settings, prepared.base, prepared.planned, prepared.data):
            watch.says(printable(line))
        with _working(settings) as directory:
            return _Run(settings, prepared, directory, watch).train(began, base)


def _prepare(settings: TrainingSettings) -> _Prepared:
    datasets.disable_progress_bars()
    base = read_base_model(settings.base)
    config = load_config(settings.base)
    planned = judge_planned(settings, config, base)
    tokenizer = load_tokenizer(base, settings.chat_template)
    read = read_data(settings.data, settings.eval_data)
    samples, held_out = _parted(read, settings)
    if settings.early_stopping_patience and held_out is None:
        raise ConverterError("--early-stopping-patience: nothing is held out; give --eval-data or --eval-split")
    learned = tokenised(samples, tokenizer, settings)
    measured = tokenised(held_out, tokenizer, settings) if held_out is not None else None
    prepared = _Prepared(base, tokenizer, learned, measured, general_texts(settings.general_text), planned, read)
    _refuse_beyond_context(settings, prepared.data.longest, getattr(config, "max_position_embeddings", None))
    return prepared


def _refuse_beyond_context(settings: TrainingSettings, longest: int, context: int | None) -> None:
    length = min(longest, settings.max_length)
    if context and length > context:
        raise ConverterError(
            f"{settings.data}: the longest sample has {length} tokens, the context of {settings.base} ends at "
            f"{context}; give --max-length {context}, and --overlong drop or truncate"
        )


def _parted(read: Read, settings: TrainingSettings) -> tuple[tuple[Sample, ...], tuple[Sample, ...] | None]:
    if read.evaluated is not None:
        return read.learned, read.evaluated
    return split_samples(read.learned, settings.eval_split)


@contextmanager
def _working(settings: TrainingSettings) -> Iterator[Path]:
    """The run's directory, kept by the first process alone."""
    state = PartialState()
    if not state.is_main_process:
        state.wait_for_everyone()
        yield working_directory(settings.output)
        return
    with working(settings) as directory:
        state.wait_for_everyone()
        yield directory


class _Run:
    """A run under way: the model with its adapter, and the trainer."""

    def __init__(self, settings: TrainingSettings, prepared: _Prepared, directory: Path, watch: Watch) -> None:
        self._settings, self._prepared, self._directory = settings, prepared, directory
        with quiet():
            model = load_base(settings.base, base_dtype(settings), None)
        self._n_parameters = model.num_parameters()
        self._fingerprint = fingerprint(prepared.base)
        with quiet():
            self._model = attach(model, settings)
            self._ends = ends_digest(self._model)
            self._metrics = Metrics(directory, watch, read_metrics(directory) if settings.resume else ())
            self._trainer = self._new_trainer()

    def train(self, began: float, base: Measured | None) -> TrainingReport:
        before = base or self._measured()
        if base and base.eval_loss is not None and not self._metrics.rows:
            self._metrics.record(0, {"eval_loss": base.eval_loss}, writes=PartialState().is_main_process)
        last = checkpoints(self._directory)[-1] if self._settings.resume else None
        set_seed(self._settings.seed)  # measuring draws numbers too, and isn't always done
        self._trainer.learn(last)
        if self._metrics.stopped:
            raise Stopped(*self._metrics.stopped)
        after = self._measured()
        self._prove_ends()
        return self._save(before, after, began)

    def _new_trainer(self) -> AdapterTrainer:
        settings, prepared = self._settings, self._prepared
        held_out = prepared.held_out.dataset if prepared.held_out else None
        arguments = trainer_config(
            settings, self._directory, PartialState().num_processes, evaluates=held_out is not None
        )
        trainer = AdapterTrainer(
            self._model,
            args=arguments,
            train_dataset=prepared.learned.dataset,
            eval_dataset=held_out,
            processing_class=prepared.tokenizer,
            callbacks=[self._metrics, *_early_stopping(settings)],
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _measured(self) -> Measured:
        context = getattr(self._model.config, "max_position_embeddings", None)
        limit = min(self._settings.max_length, context or self._settings.max_length)
        general = perplexity(self._trainer.model_wrapped, self._prepared.tokenizer, self._prepared.general, limit)
        return Measured(self._eval_loss() if self._prepared.held_out else None, general)

    def _eval_loss(self) -> float:
        """The loss of what is held out; where it was just measured, not once more."""
        step = self._trainer.state.global_step
        known = self._metrics.eval_loss(step)
        if known is not None and not (step and self._settings.early_stopping_patience):
            return known
        return float(self._trainer.measure()["eval_loss"])

    def _prove_ends(self) -> None:
        """The base's ends are what they were. Where they lie in shards, no process has them to look at."""
        if self._trainer.is_fsdp_enabled or self._trainer.is_deepspeed_enabled:
            return
        if ends_digest(self._model) != self._ends:
            raise ConverterError(f"{self._settings.base}: training changed its embedding or head; nothing was saved")

    def _save(self, before: Measured, after: Measured, began: float) -> TrainingReport:
        trainer: Any = self._trainer
        state = trainer.accelerator.get_state_dict(trainer.deepspeed if trainer.is_deepspeed_enabled else trainer.model)
        if not PartialState().is_main_process:
            return self._report(before, after, 0, (), began)
        settings, base, adapter = self._settings, self._prepared.base, self._directory / "adapter"
        write_adapter(self._model, state, settings, self._prepared.tokenizer, adapter)
        write_record(adapter, self._fingerprint, base)
        judged = judge_saved(adapter, settings, base)
        warnings = tuple(dict.fromkeys(finding.code for finding in judged.findings if _concerns(finding, settings)))
        nbytes = sum(path.stat().st_size for path in adapter.glob("*.safetensors"))
        report = self._report(before, after, nbytes, warnings, began)
        write_report(report, adapter)
        write_loss_curve(self._metrics.rows, settings.output.name, adapter / "loss.png")
        for name in (METRICS_NAME, SETTINGS_NAME):
            shutil.copyfile(self._directory / name, adapter / name)
        adapter.rename(settings.output)
        return report

    def _report(
        self, before: Measured, after: Measured, nbytes: int, warnings: tuple[str, ...], began: float
    ) -> TrainingReport:
        base, settings = self._prepared.base, self._settings
        return TrainingReport(
            **common_facts(settings),
            base=Base(str(base.path), base.model_type, self._fingerprint, base.tied, self._n_parameters),
            head=Head(settings.head, untied=base.tied and settings.head in {"lora", "full"}),
            data=self._prepared.data,
            n_trainable=self._prepared.planned.n_trainable,
            adapter_nbytes=nbytes,
            steps=self._trainer.state.global_step,
            train_loss=mean_of_last(self._metrics.rows),
            eval_loss=after.eval_loss,
            eval_loss_of_base=before.eval_loss,
            perplexity=GeneralText(before.general.value, after.general.value, after.general.n_tokens),
            deployments=self._prepared.planned.deployments,
            warnings=warnings,
            seconds=round(time.monotonic() - began, 1),
        )


def _concerns(finding: Finding, settings: TrainingSettings) -> bool:
    return finding.severity is Severity.WARNING and settings.deployment.kind in finding.blocks


def _early_stopping(settings: TrainingSettings) -> list[EarlyStoppingCallback]:
    patience = settings.early_stopping_patience
    return [EarlyStoppingCallback(patience)] if patience else []


def base_dtype(settings: TrainingSettings) -> torch.dtype:
    """BF16 where a GPU computes in it; a CPU is faster and more exact in float32.

    What is trained of the base itself has the base's dtype, and BF16 rounds small steps away. PEFT's own is float32.
    """
    if settings.dtype != "auto":
        chosen: torch.dtype = getattr(torch, settings.dtype)
        return chosen
    trains_its_own = settings.head == "full" or settings.bias != "none"
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if has_bf16 and not trains_its_own else torch.float32
