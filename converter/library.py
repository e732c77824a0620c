"""The functions that ``import converter`` offers. Each does all that the command of its name does, and prints nothing.

They may be called from threads and from services that live long: nothing is left open, and nothing of the process is
changed but BLAS's number of threads while a file is written.
"""

from collections.abc import Iterable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from converter import conversion
from converter.checking import check_adapter
from converter.conversion import Written
from converter.derive.adapter import Adapter, text_part, with_renamed_keys
from converter.derive.base_model import BaseModel, read_base_model
from converter.derive.locate import locate_adapter, locate_base, located_base, read_initial_adapter
from converter.derive.untabled import with_checkpoint
from converter.diagnostics import Deployment, Report
from converter.planning.conversion_plan import ConversionPlan
from converter.read.hub_address import SCHEMES, remote_address
from converter.writing.gguf_file import Progress

if TYPE_CHECKING:
    from converter.training.report import TrainingReport
    from converter.training.settings import TrainingSettings
    from converter.training.watch import Watch
    from converter.verification.verification import Deployed, Verification

AnyPath = str | PathLike[str]
LORA = Deployment()


def read_adapter(
    path: AnyPath, *, initial: AnyPath | None = None, rename_keys: bool = False, text_only: bool = False
) -> Adapter:
    """Read the PEFT adapter at ``path``, or the only one below it: headers and JSON, no numbers.

    ``path`` may be an address, as text: "hf://ORG/NAME@REVISION" on a hub (extra ``hub``), "s3://BUCKET/PREFIX" or
    "gs://BUCKET/PREFIX" in a bucket (extra ``buckets``). Of that there are no numbers to convert or to verify, and
    ``check`` skips the rules that read them. What was fetched goes with the adapter.
    ``initial`` is the adapter as saved before training, where that changed the base (PiSSA, OLoRA, CorDA, LoRA-GA).
    ``rename_keys`` reads keys that PEFT doesn't load, of a wrapped or a bare model, as those it would have written.
    ``text_only`` leaves out what it changes of a multimodal model's vision and audio parts (``adapter.left_out``).
    What is wrong with its files is kept for ``check`` to tell.

    Raises ConverterError: status 3 where there is no adapter, 2 where there are several or a file can't be read.
    """
    adapter = _on_hub(path) if isinstance(path, str) and path.startswith(SCHEMES) else locate_adapter(Path(path))
    adapter = with_renamed_keys(adapter) if rename_keys else adapter
    adapter = text_part(adapter) if text_only else adapter
    return replace(adapter, initial=read_initial_adapter(Path(initial))) if initial else adapter


def _on_hub(address: str) -> Adapter:
    from converter.hub import read_adapter_on_hub

    return read_adapter_on_hub(remote_address(address))


def read_base(source: AnyPath | Adapter, *, checkpoint: AnyPath | None = None) -> BaseModel:
    """Read a base: a Hugging Face directory, a GGUF file, or a name of the hub's cache; or the one an adapter names.

    ``checkpoint`` is the Hugging Face directory that a GGUF was made from whose architecture has no table here: merging
    then finds what an adapter changes by comparing the two.

    Raises ConverterError, status 2, where it can't be read or isn't there.
    """
    base = locate_base(source) if isinstance(source, Adapter) else read_base_model(located_base(Path(source)))
    return with_checkpoint(base, located_base(Path(checkpoint))) if checkpoint else base


def check(
    adapter: Adapter,
    base: BaseModel | None = None,
    deployment: Deployment | None = None,
    *,
    targets: Iterable[str] = (),
    values: bool = True,
) -> Report:
    """Judge an adapter for a deployment, for servers, or for both: ``report.passed``, ``report.findings``, and more.

    ``report.skipped`` is what could not be looked at. ``targets`` are servers such as ``"vllm"`` or ``"vllm@0.32.0"``
    (docs/targets.md), and ``report.targets`` their answers. The deployment is a LoRA GGUF where neither is given.
    ``values`` reads the numbers too, as a conversion always does.

    Raises ConverterError where a file can't be read, or there is no such target.
    """
    asked = tuple(targets)
    if not asked:
        return check_adapter(adapter, base, deployment or LORA, values=values)
    from converter.targets.tables import wanted

    of = tuple(map(wanted, asked))
    is_asked = deployment is not None
    return check_adapter(adapter, base, deployment or LORA, values=values, targets=of, deployment_asked=is_asked)


def plan(
    adapter: Adapter, base: BaseModel, deployment: Deployment = LORA, *, scratch: AnyPath | None = None
) -> ConversionPlan:
    """Judge an adapter, numbers included, and decide every tensor of the output, before a byte is written.

    Where PEFT has to compute something (extra ``train``), that lies below ``scratch``, by default the system's
    temporary directory, until the plan is closed: use it in a ``with``.

    Raises Refused where a rule forbids the deployment, ConverterError where it can't be done.
    """
    return conversion.plan(adapter, base, deployment, scratch=Path(scratch) if scratch else None)


def write(
    planned: ConversionPlan,
    output: AnyPath,
    progress: Progress = lambda _: None,
    *,
    split_max_size: int | None = None,
) -> tuple[Written, ...]:
    """Write a plan to ``output``, whole or not at all: a file, or a directory for an untied base and its LoRA.

    ``progress`` is called with each count of bytes written. ``split_max_size`` (bytes of tensors) makes several files
    of a merged model that is larger, NAME-00001-of-00003.gguf and so on. Raises Refused where the numbers break a rule
    on the way (NM010, NM011), ConverterError where it can't be done.
    """
    return conversion.write(planned, Path(output), progress, split_max_size=split_max_size)


def convert(
    adapter: AnyPath | Adapter,
    output: AnyPath,
    *,
    base: AnyPath | BaseModel | None = None,
    deployment: Deployment = LORA,
) -> tuple[Written, ...]:
    """Read, judge, plan and write in one call; without ``base``, over the one that the adapter names.

    Raises Refused where the adapter can't be deployed so, ConverterError where it can't be done.
    """
    given = adapter if isinstance(adapter, Adapter) else read_adapter(adapter)
    over = base if isinstance(base, BaseModel) else read_base(base or given)
    with plan(given, over, deployment, scratch=Path(output).parent) as planned:
        return write(planned, output)


def verify(adapter: Adapter, base: AnyPath, deployed: "Deployed", *, prompts: AnyPath | None = None) -> "Verification":
    """Prove that a GGUF serves an adapter as PEFT does; needs the extra ``verify``. ``verification.passed`` says it.

    ``base`` is what PEFT gets: a Hugging Face directory or a GGUF. ``deployed`` is ``DeployedModel(path)`` or
    ``DeployedLora(path, base_gguf)``, ``prompts`` a file with a text a line in place of the built-in ones. llama.cpp
    runs in a process of its own, PEFT in this one.

    Raises ConverterError where it can't be found out; a file that llama.cpp refuses is not proven.
    """
    from converter.verification.prompts import PromptFile
    from converter.verification.verification import verify as prove

    texts = PromptFile(Path(prompts)) if prompts else None
    return prove(adapter, located_base(Path(base)), deployed, prompts=texts)


def train(settings: "TrainingSettings", watch: "Watch | None" = None) -> "TrainingReport":
    """Train an adapter and save it at ``settings.output``; needs the extra ``train``. ``watch`` looks on.

    Raises Refused where the gate closes before the first step or after the last, ConverterError for all else that a
    user can cause; nothing is at ``settings.output`` then.
    """
    from converter.training.run import train as run
    from converter.training.watch import Unwatched

    return run(replace(settings, base=located_base(settings.base)), watch or Unwatched())
