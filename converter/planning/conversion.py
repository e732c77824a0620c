"""From a judged adapter, its base and a deployment to the plan."""

from collections.abc import Iterator
from dataclasses import replace

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.replication import as_trained
from converter.derive.windows import ignored_window
from converter.diagnostics import Deployment
from converter.errors import ConverterError
from converter.planning.conversion_plan import ConversionPlan, PlannedFile
from converter.planning.ledger import plan_ledger
from converter.planning.lora import plan_lora
from converter.planning.vocabulary import vocabulary_notes


def plan_conversion(adapter: Adapter, base: BaseModel, deployment: Deployment) -> ConversionPlan:
    """Decide every output tensor. The adapter must have passed check_adapter for this deployment.

    Raises ConverterError where an ``outtype`` doesn't fit a tensor, LedgerGapError where a part is left over.
    """
    if base.architecture is None:
        raise ConverterError(f"{base.path}: architecture {base.model_type!r} is not supported")
    if deployment.quantize:
        from converter.planning.quantised import imatrix_notes, quantised, refuse_unfit

        refuse_unfit(deployment)
    trained = as_trained(base, adapter)
    files, host_notes = _hosted(_files(adapter, trained, deployment), trained, deployment)
    if deployment.quantize:
        files = (quantised(files[0], deployment.quantize),)
        host_notes = (*host_notes, *(imatrix_notes(files[0]) if deployment.quantize.imatrix else ()))
    ledger = plan_ledger(adapter, files)
    notes = (*_notes(adapter, base, deployment), *host_notes)
    matches = base.match.tensors if base.match else ()
    return ConversionPlan(deployment, base.architecture.name, files, ledger, notes, matches, adapter=adapter, base=base)


def _notes(adapter: Adapter, base: BaseModel, deployment: Deployment) -> Iterator[str]:
    """What whoever serves the output has to know."""
    yield from vocabulary_notes(adapter, base, deployment)
    window = ignored_window(base)
    if window:
        yield f"llama.cpp's graph hasn't the sliding window of {window} tokens: keep the context to that"


def _files(adapter: Adapter, base: BaseModel, deployment: Deployment) -> tuple[PlannedFile, ...]:
    outtype = _outtype(base, deployment)
    match deployment.kind:
        case "lora":
            return (plan_lora(adapter, base, outtype),)
        case "untie-lora":
            from converter.planning.untied import LORA_NAME, plan_untied_base

            return (plan_untied_base(base), plan_lora(adapter, replace(base, fused={}), outtype, LORA_NAME))
        case "model" | "untie-model":
            from converter.planning.merged import plan_merged

            return (plan_merged(adapter, base, outtype, untie=_unties(adapter, base, deployment)),)


def _outtype(base: BaseModel, deployment: Deployment) -> str | None:
    """What touched tensors are planned as. Before they are quantised F32, but of a host what its Q8_0 is made for."""
    if not deployment.quantize:
        return deployment.outtype
    hosts = deployment.untie and base.architecture is not None and not base.architecture.graph.reads_output
    return "f16" if hosts else "f32"


def _unties(adapter: Adapter, base: BaseModel, deployment: Deployment) -> bool:
    """Whether the head gets a tensor of its own: not for a pair trained as one where that would need a host."""
    free = base.architecture is not None and base.architecture.graph.reads_output
    is_pair = adapter.is_tied_pair or adapter.is_saved_pair
    return deployment.untie and (free or not is_pair or deployment.host not in (None, "auto"))


def _hosted(
    files: tuple[PlannedFile, ...], base: BaseModel, deployment: Deployment
) -> tuple[tuple[PlannedFile, ...], tuple[str, ...]]:
    """The files as they are, or those of a host where llama.cpp's own graph reads no head; and what to know of it."""
    if base.architecture is None or base.architecture.graph.reads_output or not deployment.untie:
        if deployment.host not in (None, "auto", "native"):
            raise ConverterError("--host is for the untied head of a Gemma 1 or 2; leave it out")
        return files, ()
    from converter.planning.rehost.hosting import hosted_lora, hosted_model

    host = deployment.host or "auto"
    if len(files) == 1:
        return hosted_model(files[0], base, host, _outtype(base, deployment))
    return hosted_lora(files[0], files[1], base, host, deployment.outtype)
