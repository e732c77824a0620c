"""trl's SFTTrainer, made to train a head, to stop at a loss that is no number, and to save what is needed.

trl 1.16.0, trl/trainer/sft_trainer.py: the loss is computed from ``lm_head.weight`` directly, past any LoRA on the
head, and so a LoRA there is refused. Where the head is adapted, the loss here comes from the model's own forward
(transformers/trainer.py, compute_loss), in which it takes part; that refusal then has no reason.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import TrainerState
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from converter.errors import JUDGED_BAD, ConverterError
from converter.training.head import head_is_adapted
from converter.training.saved import METRICS_NAME, STATE_NAME
from converter.training.settings import TrainingSettings
from converter.training.watch import Watch
from converter.transformers_base import without_warnings


class AdapterTrainer(SFTTrainer):
    """SFTTrainer for a PeftModel and a tokenised dataset."""

    def __init__(self, model: Any, **arguments: Any) -> None:
        self._head_is_adapted = head_is_adapted(model)
        with _head_not_looked_at(model, self._head_is_adapted):
            super().__init__(model=model, **arguments)

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
        """The mean loss of the learned tokens, through the head as PEFT has it."""
        # Both are untyped.
        loss: Any = Trainer.compute_loss if self._head_is_adapted else SFTTrainer.compute_loss
        return loss(self, model, {**inputs, "use_cache": False}, *arguments, **named)

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        """One forward and backward. Raises ConverterError where the loss is no number, in every process."""
        loss: torch.Tensor = super().training_step(*arguments, **named)  # type: ignore[no-untyped-call]  # trl's
        refuse_nan(float(self.accelerator.reduce(loss.detach(), "mean")), "loss", self.state.global_step + 1)
        return loss

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The course of the learning rate. A share of the steps that is less than one is no warm-up.

        The superclass rounds it up, and the first step of a warm-up has the rate 0: a run of one step learned nothing.
        """
        if self.args.warmup_steps < 1:
            self.args.warmup_steps = int(num_training_steps * self.args.warmup_steps)
        return super().create_scheduler(num_training_steps, optimizer)

    def learn(self, checkpoint: Path | None) -> None:
        """Train to the end, from a checkpoint or from the start."""
        with without_warnings():
            if checkpoint and self._is_over(checkpoint):
                return
            self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    def _is_over(self, checkpoint: Path) -> bool:
        """Whether it is of the last step: then it is what was trained. The superclass would take one step more."""
        state = TrainerState.load_from_json(str(checkpoint / STATE_NAME))
        if state.global_step < state.max_steps:
            return False
        best = state.best_model_checkpoint if self.args.load_best_model_at_end else None
        self.state = state
        self._load_from_checkpoint(str(checkpoint.with_name(Path(best).name) if best else checkpoint))
        return True

    def measure(self) -> dict[str, float]:
        """The losses of what is held out."""
        with without_warnings():
            return self.evaluate()

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No card: what there is to say of the adapter is in its training report."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """A checkpoint: the adapter alone, without copies of the base's ends and without a pickle."""
        model: Any = self.model
        model.save_pretrained(
            output_dir or self.args.output_dir,
            state_dict=state_dict,
            save_embedding_layers=False,
            is_main_process=self.args.should_save,
        )


def refuse_nan(loss: float, name: str, step: int) -> None:
    """Raise ConverterError where a loss is NaN or infinite."""
    if not torch.isfinite(torch.tensor(loss)):
        raise ConverterError(
            f"{name} is {loss} at step {step}: the run has diverged and nothing was saved; lower --learning-rate, or "
            "train in --dtype float32 without --bf16",
            status=JUDGED_BAD,
        )


@contextmanager
def _head_not_looked_at(model: Any, head_is_adapted: bool) -> Iterator[None]:  # noqa: FBT001  a fact
    """While trl's constructor runs, an adapted head shows its base layer."""
    base = model.get_base_model()
    if not head_is_adapted:
        yield
        return
    head = base.get_output_embeddings()
    base.get_output_embeddings = lambda: getattr(head, "base_layer", head)
    try:
        yield
    finally:
        del base.get_output_embeddings


def trainer_config(settings: TrainingSettings, directory: Path, n_processes: int, *, evaluates: bool) -> SFTConfig:
    """The settings as trl and transformers want them. Raises ConverterError where the batches don't divide."""
    if torch.cuda.device_count() > 1 and n_processes == 1:
        raise ConverterError(
            f"{torch.cuda.device_count()} GPUs are visible to one process; start one for each with `accelerate launch "
            "-m converter.training`, or show it one with CUDA_VISIBLE_DEVICES=0"
        )
    per_device = min(settings.per_device_train_batch_size, max(1, settings.batch_size // n_processes))
    if settings.batch_size % (per_device * n_processes):
        raise ConverterError(
            f"--batch-size {settings.batch_size} is no multiple of --per-device-train-batch-size {per_device} x "
            f"{n_processes} processes"
        )
    strategy = "steps" if settings.eval_steps else "epoch"
    early = settings.early_stopping_patience > 0
    return SFTConfig(
        output_dir=str(directory),
        trust_remote_code=False,
        num_train_epochs=settings.num_train_epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=per_device,
        per_device_eval_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.batch_size // (per_device * n_processes),
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        bf16=settings.bf16,
        gradient_checkpointing=settings.gradient_checkpointing,
        router_aux_loss_coef=0.0,  # routers are frozen
        packing=settings.packing,
        max_length=settings.max_length,
        eval_packing=False,
        eval_strategy=strategy if evaluates else "no",
        eval_steps=settings.eval_steps or None,
        save_strategy=strategy if early else ("steps" if settings.save_steps else "no"),
        save_steps=(settings.eval_steps if early else settings.save_steps) or 500,
        save_total_limit=2,
        load_best_model_at_end=early,
        metric_for_best_model="eval_loss" if evaluates else None,
        greater_is_better=False if evaluates else None,
        logging_steps=settings.logging_steps,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available() and not torch.backends.mps.is_available(),
    )


class Metrics(TrainerCallback):
    """Writes metrics.jsonl, a line for each thing logged, and asks the watch after each evaluation."""

    def __init__(self, directory: Path, watch: Watch, rows: Iterable[Mapping[str, float]]) -> None:
        self._path = directory / METRICS_NAME
        self._watch = watch
        self.rows = list(rows)
        self.stopped: tuple[int, float] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002  the superclass's
        """Tell how long it will be."""
        self._watch.begins(state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # noqa: ARG002  the superclass's
        """Keep what was logged."""
        values = {name: value for name, value in more["logs"].items() if isinstance(value, int | float)}
        self.record(state.global_step, values, writes=state.is_world_process_zero)
        if "eval_loss" in values:
            refuse_nan(values["eval_loss"], "eval_loss", state.global_step)
            self._ask(state, control, values["eval_loss"])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002  the superclass's
        """Have the loss logged whenever the run is evaluated, and at its end, however seldom it is otherwise."""
        control.should_log |= control.should_evaluate or state.global_step >= state.max_steps

    on_epoch_end = on_step_end

    def eval_loss(self, step: int) -> float | None:
        """What was measured after this step, if it was."""
        return next((row["eval_loss"] for row in self.rows if row["step"] == step and "eval_loss" in row), None)

    def _ask(self, state: Any, control: Any, eval_loss: float) -> None:
        """Before the first step and after the last there is nothing to stop."""
        if 0 < state.global_step < state.max_steps and self._watch.stops(state.global_step, eval_loss):
            self.stopped = state.global_step, eval_loss
            control.should_training_stop = True

    def record(self, step: int, values: Mapping[str, float], *, writes: bool) -> None:
        """Keep a row, tell the watch, and append the row to the file."""
        row = {"step": step, **values}
        self.rows.append(row)
        if writes:
            self._watch.logged(step, values)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
