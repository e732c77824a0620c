"""``adapter-train``: PEFT adapters made to be deployed, one by one or in a sweep."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Any, Final, get_args

import click

from converter.cli.command import Command
from converter.cli.extras import need_extra
from converter.cli.options import BASE, FORMAT, PATH
from converter.cli.refusals import refusals_shown
from converter.cli.train_config import config_option
from converter.cli.width import report_width
from converter.errors import FINE
from converter.report.printable import printable
from converter.training.settings import HEADS, Bias, Dtype, Loss, Overlong, TrainingSettings, working_directory
from converter.version import __version__

COMMAND = "adapter-train"

_HELP = """Train a LoRA of BASE on DATA with PEFT and trl, and save it at OUTPUT, ready to be deployed.

The gate runs first and last: what the settings will make is judged before the first step, and what was made before it
is saved. Exit status: 0 trained and saved; 1 refused, or the training diverged; 2 it could not be done. Where it is
not 0, nothing is at OUTPUT.
"""
_EXTRA: Final = ("accelerate", "datasets", "matplotlib", "optuna", "peft", "torch", "transformers", "trl")
_TARGETS = ("lora", "model", "untie-lora", "untie-model")
_SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt")

# Every field of TrainingSettings: its type on the command line, and what it means.
_OPTIONS: Final[Mapping[str, tuple[Any, str]]] = {
    "base": (BASE, "Base model: a Hugging Face directory or a GGUF file, with its tokenizer."),
    "data": (str, "A jsonl, json, csv, parquet or text file, a directory of them, or a dataset on the hub."),
    "output": (PATH, "Directory of the adapter to be made. With --sweep, of the sweep."),
    "head": (
        click.Choice(HEADS),
        (
            "none: all-linear, without the head. lora: a truly untied head with a LoRA. full: a truly untied head, "
            "saved whole. tied: one LoRA for head and embedding (ensure_weight_tying)."
        ),
    ),
    "target": (click.Choice(_TARGETS), "The deployment it is for.  [default: what suits the settings]"),
    "r": (click.IntRange(1), "Rank."),
    "lora_alpha": (float, "Scaling is lora_alpha / r, with rsLoRA lora_alpha / sqrt(r)."),
    "lora_dropout": (click.FloatRange(0, 1, max_open=True), "Dropout before lora_A."),
    "use_rslora": (bool, "Scale by the root of the rank."),
    "bias": (click.Choice(get_args(Bias)), "Which of the base's biases are trained."),
    "lora_bias": (bool, "A bias on lora_B."),
    "save_embedding_layers": (bool, "Save a copy of the base's head beside the head's LoRA, as PEFT does by itself."),
    "eval_data": (str, "Data to evaluate on, as --data."),
    "eval_split": (click.FloatRange(0, 0.9), "Without --eval-data, the share of the data that is held out."),
    "loss": (click.Choice(get_args(Loss)), "What is learned: the completion or last answer, every answer, or all."),
    "max_length": (click.IntRange(2), "The longest sample, in tokens; with --packing the length of a pack."),
    "overlong": (click.Choice(get_args(Overlong)), "What becomes of longer samples."),
    "packing": (bool, "Put several samples in one sequence; they don't see each other."),
    "chat_template": (PATH, "Jinja file, for a base without a chat template or instead of its own."),
    "general_text": (PATH, "Text on which forgetting is measured.  [default: a built-in one]"),
    "learning_rate": (click.FloatRange(0, min_open=True), "The highest learning rate of AdamW."),
    "num_train_epochs": (click.FloatRange(0, min_open=True), "How often the data is seen."),
    "max_steps": (click.IntRange(0), "Steps in all, instead of epochs; 0: by epochs."),
    "batch_size": (click.IntRange(1), "Samples of one step, over all processes."),
    "per_device_train_batch_size": (
        click.IntRange(1),
        "Samples that a process computes at a time, at most; less: less memory.",
    ),
    "lr_scheduler_type": (click.Choice(_SCHEDULES), "Course of the learning rate."),
    "warmup_ratio": (click.FloatRange(0, 1, max_open=True), "Share of the steps in which it rises; not with constant."),
    "weight_decay": (click.FloatRange(0), "AdamW's."),
    "max_grad_norm": (click.FloatRange(0), "Gradients are cut to this norm; 0: never."),
    "seed": (
        click.IntRange(0, 2**32 - 1),
        "Of lora_A, dropout and the order of the samples. What is held out doesn't depend on it.",
    ),
    "dtype": (
        click.Choice(get_args(Dtype)),
        "Of the base in memory. auto: bfloat16 on GPUs that have it, but not where a whole head or biases are trained.",
    ),
    "bf16": (bool, "Compute in bfloat16 (autocast)."),
    "gradient_checkpointing": (bool, "Compute activations twice, to save memory."),
    "logging_steps": (click.IntRange(1), "Steps between two lines of metrics.jsonl."),
    "eval_steps": (click.IntRange(0), "Steps between two evaluations; 0: one an epoch."),
    "save_steps": (
        click.IntRange(0),
        "Steps between two checkpoints for --resume; 0: none. Early stopping keeps them at evaluations instead.",
    ),
    "early_stopping_patience": (
        click.IntRange(0),
        "End after so many evaluations without a better one, and keep the best; 0: never.",
    ),
    "resume": (bool, "Go on from the last checkpoint of a run that ended early."),
}  # fmt: skip


def _training_options(command: Any) -> Any:
    for field in reversed(fields(TrainingSettings)):
        kind, text = _OPTIONS[field.name]
        name = field.name.replace("_", "-")
        is_required = field.name in {"base", "data", "output"}
        default = {} if is_required or field.default is None else {"default": field.default, "show_default": True}
        spelled = f"--{name}/--no-{name}" if kind is bool else f"--{name}"
        kind = {} if kind is bool else {"type": kind}
        command = click.option(spelled, field.name, help=text, required=is_required, **kind, **default)(command)
    return command


@click.command(COMMAND, cls=Command, help=_HELP)
@_training_options
@click.option("--sweep", metavar="FILE", help="Try settings instead of training once: a TOML file, or `default`.")
@FORMAT
@config_option
@click.version_option(__version__)
def main(sweep: str | None, style: str, **options: Any) -> None:
    need_extra("train", *_EXTRA)
    # Before their import: no bar but ours is drawn, tokenizers don't warn of forks, no thread spins while it waits.
    os.environ.update({"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"})
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    settings = TrainingSettings(**options)
    with refusals_shown(style):
        told = _sweep(sweep, settings, style) if sweep else _train(settings, style)
    if style == "json" and os.environ.get("RANK", "0") == "0":  # of several processes the first speaks
        from converter.report.envelope import envelope
        from converter.report.printable import json_line

        click.echo(json_line(envelope(COMMAND, FINE, **told)))


@contextmanager
def _resumable(settings: TrainingSettings) -> Iterator[None]:
    """Say what Ctrl-C has left."""
    try:
        yield
    except KeyboardInterrupt:
        from converter.training.saved import checkpoints

        kept = checkpoints(working_directory(settings.output))
        way = "the same command with --resume goes on from the last checkpoint"
        click.echo(
            f"{COMMAND}: {way if kept else 'no checkpoint was kept; --save-steps N keeps some for --resume'}", err=True
        )
        raise


def _train(settings: TrainingSettings, style: str) -> dict[str, object]:
    from converter.cli.training_progress import terminal_watch
    from converter.training.loss_curve import glyphs_for, loss_curve_text
    from converter.training.run import train
    from converter.training.saved import read_metrics
    from converter.training.summary import lines_after

    with _resumable(settings), terminal_watch(on_stderr=style == "json") as watch:
        report = train(settings, watch)
        if sys.stdout.isatty() and style == "text":
            glyphs = glyphs_for(sys.stdout.encoding)
            watch.says(loss_curve_text(read_metrics(settings.output), report_width(), glyphs=glyphs))
        for line in lines_after(report, settings):
            watch.says(printable(line))
    return {"adapter": str(settings.output), "report": asdict(report)}


def _sweep(plan: str, settings: TrainingSettings, style: str) -> dict[str, object]:
    from converter.cli.training_progress import terminal_watch
    from converter.training.sweep.table import recommendation_text, text_table
    from converter.training.sweep.trained import sweep_trainings

    on_stderr = style == "json"
    with terminal_watch(on_stderr=on_stderr) as watch:
        outcome = sweep_trainings(plan, settings, watch)
    advice = outcome.recommendation
    recommended = recommendation_text(advice, report_width())
    click.echo("\n" + text_table(outcome.results, getattr(advice, "trial", None)), err=on_stderr)
    click.echo(recommended, err=on_stderr)
    click.echo(printable(f"report  {outcome.report}"), err=on_stderr)
    return {"sweep": {"report": str(outcome.report), "recommendation": recommended}}
