"""The gate before the first step: the adapter that the settings will make, judged without a number in it.

PEFT is attached to a model without numbers; its config and the names and shapes of its tensors are all that the rules
and the plan of a conversion read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from peft import PeftModel, get_peft_model_state_dict
from transformers import PretrainedConfig

from converter.checking import check_adapter
from converter.conversion import Refused
from converter.derive.adapter import Adapter, read_adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import OPTIONS, Deployment, Kind, Report
from converter.errors import ConverterError
from converter.planning.conversion import plan_conversion
from converter.scratch import Scratch
from converter.training.head import attach
from converter.training.settings import TrainingSettings
from converter.transformers_base import quiet, shell
from converter.writing.gguf_file import gguf_nbytes

_DTYPES: Final = {"torch.float32": "F32", "torch.bfloat16": "BF16", "torch.float16": "F16"}


@dataclass(frozen=True, slots=True)
class Deployable:
    """What one kind of deployment comes to: the rules that forbid it, or the bytes of its files (None: unknown)."""

    refused_by: tuple[str, ...]
    nbytes: int | None


@dataclass(frozen=True, slots=True)
class Planned:
    """What the settings will make: how many numbers are trained, and what each kind of deployment comes to.

    ``n_in_frozen_experts`` are the numbers of experts that no LoRA reaches, 0 where there are none.
    """

    n_trainable: int
    deployments: Mapping[Kind, Deployable]
    n_in_frozen_experts: int = 0


def judge_planned(settings: TrainingSettings, config: PretrainedConfig, base: BaseModel) -> Planned:
    """Judge the adapter that the settings will make, for every deployment.

    Raises Refused where it can't be deployed to the settings' target, ConverterError where PEFT can't make it.
    """
    with Scratch() as scratch, quiet():
        model = attach(shell(config), settings)
        _write_planned(model, scratch.path)
        adapter = read_adapter(scratch.path)
        report = check_adapter(adapter, base, settings.deployment)
        if not report.passed:
            raise Refused(replace(report, path=settings.output))
        deployments = {kind: _deployable(report, adapter, base, kind) for kind in OPTIONS}
        return Planned(model.get_nb_trainable_parameters()[0], deployments, _in_frozen_experts(model))


def _in_frozen_experts(model: PeftModel) -> int:
    """How many numbers lie in fused experts without a LoRA: parameters that all-linear doesn't name."""
    experts = {name: parameter for name, parameter in model.named_parameters() if ".experts." in name}
    is_reached = any(".lora_" in name for name in experts)
    return 0 if is_reached else sum(parameter.numel() for parameter in experts.values())


def _deployable(report: Report, adapter: Adapter, base: BaseModel, kind: Kind) -> Deployable:
    blockers = report.blockers(kind)
    if blockers:
        return Deployable(blockers, None)
    try:
        plan = plan_conversion(adapter, base, Deployment.of(kind))
    except ConverterError:
        return Deployable((), None)
    return Deployable((), sum(gguf_nbytes(file) for file in plan.files))


def _write_planned(model: PeftModel, directory: Path) -> None:
    """An adapter's files, its weights a header before a hole: saved heads have gigabytes."""
    model.peft_config["default"].save_pretrained(str(directory))
    header: dict[str, Any] = {}
    end = 0
    for key, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items():
        begin, end = end, end + tensor.nbytes
        header[key] = {
            "dtype": _DTYPES[str(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    encoded = json.dumps(header).encode()
    with (directory / "adapter_model.safetensors").open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.truncate(8 + len(encoded) + end)
