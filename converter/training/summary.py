"""What a run says: before the first step what it will make and how that is served, after the last what came out."""

from collections.abc import Iterator, Mapping
from typing import Final

from converter.derive.base_model import BaseModel
from converter.diagnostics import OPTIONS
from converter.report.commands import conversion_command
from converter.report.documentation import rule_named
from converter.report.sizes import size_text
from converter.training.data import Use
from converter.training.planned import Deployable, Planned
from converter.training.report import Data, TrainingReport
from converter.training.settings import Head, TrainingSettings

_COSTS: Final[Mapping[Head, str]] = {
    "none": "left as it is: the adapter is served on the base itself",
    "lora": "a tensor of its own, with a LoRA: every deployment needs an untied copy of the base, and PEFT or vLLM "
    "must untie it too (config.tie_word_embeddings = false and a head of its own) before they load the adapter",
    "full": "a tensor of its own, trained and saved whole: it is served merged into a model of its own, only",
    "tied": "one LoRA for head and embedding together: it is served merged, or on an untied copy of the base",
}
_N_SOURCES: Final = 20
_USES: Final[Mapping[Use, str]] = {
    "train": "{} samples",
    "eval": "{} samples, to evaluate on",
    "left": "left alone: named as another split",
}


def lines_before(settings: TrainingSettings, base: BaseModel, planned: Planned, data: Data) -> Iterator[str]:
    """The base, the data, the LoRA, the head with its cost, and what can be deployed."""
    tie = "its head tied to its embedding" if base.tied else "its head apart from its embedding"
    yield f"base   {base.label}: {base.model_type}, {tie}"
    yield f"data   {settings.data}: {_samples(data)}; the longest has {data.longest} tokens"
    yield from _sources(data)
    yield f"LoRA   {lora_words(settings)}: {planned.n_trainable:,} parameters to train"
    if planned.n_in_frozen_experts:
        yield f"       no expert is trained: their {planned.n_in_frozen_experts:,} parameters stay as they are"
    cost = _COSTS[settings.head] if base.tied or settings.head == "none" else "trained, as the base has it"
    yield f"head   {settings.head}: {cost}"
    for kind, deployable in planned.deployments.items():
        mark = "  <- target" if kind == settings.deployment.kind else ""
        yield f"{'serves' if kind == 'lora' else '':7}{OPTIONS[kind]:20}{deployable_words(deployable)}{mark}"


def lora_words(settings: TrainingSettings) -> str:
    """The LoRA's settings in PEFT's words."""
    scaling = ", rsLoRA" if settings.use_rslora else ""
    bias = "" if settings.bias == "none" else f", bias {settings.bias}"
    b_bias = ", lora_bias" if settings.lora_bias else ""
    dropout = f", dropout {settings.lora_dropout:g}"
    return f"all-linear, r {settings.r}, alpha {settings.lora_alpha:g}{scaling}{dropout}{bias}{b_bias}"


def deployable_words(deployable: Deployable) -> str:
    """Yes and how large, or no and which rules forbid it."""
    if deployable.refused_by:
        rules = (f"{code} {rule.name}" if (rule := rule_named(code)) else code for code in deployable.refused_by)
        return f"no: {', '.join(rules)}"
    return "yes" if deployable.nbytes is None else f"yes, {size_text(deployable.nbytes)}"


def lines_after(report: TrainingReport, settings: TrainingSettings) -> Iterator[str]:
    """The losses, what it cost of general knowledge, the gate's verdict, and the command that comes next."""
    if report.eval_loss is not None and report.eval_loss_of_base is not None:
        yield f"eval loss  {report.eval_loss_of_base:.4f} -> {report.eval_loss:.4f} after {report.steps} steps"
    else:
        yield f"train loss {report.train_loss:.4f} after {report.steps} steps; nothing was held out"
    general = report.perplexity
    change = general.adapter / general.base - 1
    yield f"forgetting perplexity on general text {general.base:.2f} -> {general.adapter:.2f} ({change:+.1%})"
    noted = f", with {', '.join(report.warnings)}" if report.warnings else ""
    yield f"gate       passed for {settings.deployment.options}{noted}"
    yield f"saved      {settings.output} ({size_text(report.adapter_nbytes)})"
    command = conversion_command(str(settings.output), str(settings.base), settings.deployment.kind)
    yield f"next       {command}"


def _sources(data: Data) -> Iterator[str]:
    """A line for each file where there are several, or where one was left alone."""
    if len(data.sources) > 1:
        for source in data.sources[:_N_SOURCES]:
            yield f"       {source.name}: {_USES[source.use].format(source.n_samples)}"
    rest = data.sources[_N_SOURCES:]
    if rest:
        yield f"       and {len(rest)} more with {sum(source.n_samples or 0 for source in rest):,} samples"
    if data.beside:
        yield f"       no data: {', '.join(data.beside[:_N_SOURCES])}"


def _samples(data: Data) -> str:
    left_out = f", {data.n_dropped} dropped as too long" if data.n_dropped else ""
    cut = f", {data.n_truncated} cut to the length allowed" if data.n_truncated else ""
    return f"{data.n_train} samples to learn from, {data.n_eval} held out{left_out}{cut}"
