"""The proof of one output, as adapter-verify gives it: real llama.cpp against PEFT."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from converter.conversion import Written
from converter.derive.adapter import Adapter
from converter.errors import ConverterError
from converter.fleet.task import Outcome, Task
from converter.planning.untied import UNTIED_BASE_NAME
from converter.read.files import is_file

if TYPE_CHECKING:
    from converter.verification.verification import Deployed


def proven(task: Task, adapter: Adapter, files: Sequence[Written], outcome: Outcome) -> Outcome:
    """The outcome with its proof. Raises ConverterError where nothing can be found out."""
    # Before their import, as in adapter-verify.
    os.environ.update({"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "OMP_WAIT_POLICY": "PASSIVE"})
    from converter.verification.prompts import PromptFile
    from converter.verification.verification import verify

    prompts = task.steps.prompts
    found = verify(adapter, task.base, _deployed(task, files), prompts=PromptFile(prompts) if prompts else None)
    ratio = found.comparison.effect_ratio if found.comparison else None
    if found.passed:
        return outcome._replace(effect_ratio=ratio)
    why = f"{task.row.output}: not proven: {'; '.join(found.failures)}"
    return outcome._replace(state="unproven", message=why, effect_ratio=ratio)


def _deployed(task: Task, files: Sequence[Written]) -> "Deployed":
    """What llama.cpp is to serve: a model, or a LoRA on a GGUF of its base."""
    from converter.verification.verification import DeployedLora, DeployedModel

    row, gguf = task.row, task.base if is_file(task.base) else None
    if row.deployment.to == "model":
        return DeployedModel(files[0].path, gguf)
    if row.untied_base:
        return DeployedLora(row.output, row.untied_base)
    if row.deployment.untie:
        paths = {one.path.name == UNTIED_BASE_NAME: one.path for one in files}
        return DeployedLora(paths[False], paths[True])
    if gguf is None:
        raise ConverterError(f"{row.output}: --verify runs a LoRA on a GGUF of its base, and {task.base} is none")
    return DeployedLora(row.output, gguf)
