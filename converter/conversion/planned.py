"""From an adapter and its base to a plan: judged with its numbers, and made convertible by PEFT where it has to be."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from converter.checking import check_adapter, compared
from converter.conversion.refused import Refused, refusals
from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.config_fields import initialization
from converter.derive.peft_methods import peft_method
from converter.derive.replication import as_trained
from converter.diagnostics import Deployment, Report
from converter.errors import ConverterError, how_to_install
from converter.inputs import stamps
from converter.planning.conversion import plan_conversion
from converter.planning.conversion_plan import ConversionPlan
from converter.scratch import Scratch

Progress = Callable[[int, int], None]


def plan(
    adapter: Adapter,
    base: BaseModel,
    deployment: Deployment | None = None,
    *,
    scratch: Path | None = None,
    progress: Progress = lambda *_: None,
) -> ConversionPlan:
    """Judge the adapter, numbers included, and plan its conversion; ``deployment`` is a LoRA GGUF by default.

    What has to be computed by PEFT itself (other methods than LoRA, what PiSSA and OLoRA began with: extra ``train``)
    lies in a new directory below ``scratch`` until the plan is closed. ``progress`` is told how many modules were
    compared with a checkpoint, and of how many.

    Raises Refused where a rule forbids it, ConverterError where a file can't be read, a type doesn't fit, or PEFT is
    missing or can't do it.
    """
    deployment = deployment or Deployment()
    base = _matched(adapter, base, deployment, progress)
    if adapter.initial:
        judge(adapter.initial, base, deployment)
    if needs_weights(adapter, deployment):
        base.require_numbers()
    imatrix = deployment.quantize.imatrix if deployment.quantize else None
    inputs = stamps(adapter, base, *([imatrix] if imatrix else []))
    report = judge(adapter, base, deployment)
    with refusals(report):
        if _needs_peft(adapter):
            return replace(_through_peft(adapter, base, deployment, scratch), inputs=inputs)
        return replace(_planned(adapter, base, deployment), report=report, inputs=inputs)


def needs_weights(adapter: Adapter, deployment: Deployment) -> bool:
    """Whether the base's numbers are asked for: where it is written, or says what the adapter's own numbers are."""
    compares = adapter.base_layers or adapter.saved_modules or any(pair.magnitude for pair in adapter.pairs)
    return deployment.kind != "lora" or bool(compares or adapter.initial) or _needs_peft(adapter)


def _matched(adapter: Adapter, base: BaseModel, deployment: Deployment, progress: Progress) -> BaseModel:
    """The base with the places of what the adapter touches, where it has no table; a LoRA file needs one anyway."""
    if base.checkpoint is None or deployment.to == "lora":
        return base
    from converter.matching.matched import matched

    return matched(adapter, base, progress)


def _planned(adapter: Adapter, base: BaseModel, deployment: Deployment) -> ConversionPlan:
    """Plan what was judged: with what the judgement knew of the numbers."""
    known = adapter if base.on_hub else compared(adapter, as_trained(base, adapter))
    return plan_conversion(known, base, deployment)


def judge(adapter: Adapter, base: BaseModel, deployment: Deployment) -> Report:
    """Judge the adapter, numbers included. Raises Refused where a rule forbids the deployment."""
    adapter.require_numbers()
    report = check_adapter(adapter, base, deployment, values=True)
    if not report.passed:
        raise Refused(report)
    return report


def _needs_peft(adapter: Adapter) -> bool:
    config = adapter.config
    method = peft_method(config.peft_type) if config else None
    return method.needs_peft if method else bool(initialization(config) and not adapter.initial)


def _through_peft(adapter: Adapter, base: BaseModel, deployment: Deployment, parent: Path | None) -> ConversionPlan:
    scratch = Scratch(parent)
    with ExitStack() as undo:
        undo.callback(scratch.close)
        computed = _computed(adapter, base, scratch.path)
        report = judge(computed, base, deployment)
        planned = _planned(computed, base, deployment)
        planned = replace(
            planned, report=report, scratch=scratch, notes=(_computed_by_peft(adapter, base), *planned.notes)
        )
        undo.pop_all()
    return planned


def _computed_by_peft(adapter: Adapter, base: BaseModel) -> str:
    name = initialization(adapter.config)
    if name is None:
        return f"{adapter.config.peft_type if adapter.config else None}: merged by PEFT itself"
    return f"init_lora_weights is {name}: PEFT computed what training took out of {base.label} again, and it stays out"


def _computed(adapter: Adapter, base: BaseModel, directory: Path) -> Adapter:
    """The adapter that PEFT makes of it: of whole weights, or with what its training began with."""
    try:
        from converter.through_peft.equivalent import equivalent_adapter
        from converter.through_peft.initial import with_initial
    except ImportError as error:
        raise ConverterError(
            f"{adapter.path}: PEFT itself has to compute what it changes, and {error.name} is not installed; "
            f"{how_to_install('train')}"
        ) from error
    is_lora = adapter.config is None or adapter.config.is_lora
    return (with_initial if is_lora else equivalent_adapter)(adapter, base, directory)
