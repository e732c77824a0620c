"""From a judged adapter, its base and a deployment to the plan."""

from collections.abc import Iterator

from converter.diagnostics import Deployment
from converter.errors import ConverterError
from converter.plan.conversion_plan import ConversionPlan, PlannedFile
from converter.plan.ledger import plan_ledger
from converter.plan.lora import plan_lora
from converter.plan.merged import plan_merged
from converter.plan.untied import LORA_NAME, plan_untied_base
from converter.plan.vocabulary import vocabulary_notes
from converter.read.adapter import Adapter
from converter.read.base_model import BaseModel
from converter.read.replication import as_trained


def plan_conversion(adapter: Adapter, base: BaseModel, deployment: Deployment) -> ConversionPlan:
    """Decide every output tensor. The adapter must have passed check_adapter for this deployment.

    Raises ConverterError where an ``outtype`` doesn't fit a tensor, LedgerGapError where a part is left over.
    """
    if base.architecture is None:
        raise ConverterError(f"{base.path}: architecture {base.model_type!r} is not supported")
    files = _files(adapter, as_trained(base, adapter), deployment)
    ledger = plan_ledger(adapter, files)
    return ConversionPlan(deployment, base.architecture.name, files, ledger, tuple(_notes(adapter, base, deployment)))


def _notes(adapter: Adapter, base: BaseModel, deployment: Deployment) -> Iterator[str]:
    """What whoever serves the output has to know."""
    yield from vocabulary_notes(adapter, base, deployment)
    if adapter.config and adapter.config.alora_invocation_tokens:
        yield (
            "an aLoRA: llama-server applies it from its invocation tokens on, once they are in the prompt; "
            "other programs apply it to every token"
        )


def _files(adapter: Adapter, base: BaseModel, deployment: Deployment) -> tuple[PlannedFile, ...]:
    match deployment.kind:
        case "lora":
            return (plan_lora(adapter, base, deployment.outtype),)
        case "untie-lora":
            return (plan_untied_base(base), plan_lora(adapter, base, deployment.outtype, LORA_NAME))
        case "model" | "untie-model":
            return (plan_merged(adapter, base, deployment.outtype, untie=deployment.untie),)
