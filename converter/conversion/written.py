"""A plan written: its files, what they say of where they come from, and what must not be lost or overwritten."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from converter.conversion.refused import refusals, unjudged
from converter.derive.base_model import BaseModel
from converter.digests import ADAPTER_KEY, MERGED_KEY, adapter_digest, base_digest, merged_adapters
from converter.errors import ConverterError, RuleBroken
from converter.fingerprint import KEY as FINGERPRINT_KEY
from converter.fingerprint import fingerprint
from converter.inputs import input_files, refuse_changed
from converter.planning.conversion_plan import ConversionPlan, NewKeyValue, PlannedFile
from converter.planning.plan_data import plan_digest
from converter.read.gguf_header import read_gguf_header
from converter.version import __version__
from converter.writing.blocks import DeltaKept
from converter.writing.gguf_file import Progress, gguf_nbytes, is_written, write_gguf
from converter.writing.one_blas_thread import one_blas_thread
from converter.writing.outputs import refuse_different, refuse_special, refuse_to_lose
from converter.writing.whole_file import whole_file

# Real SmolLM2 tensors keep 0.96 of their delta in BF16, 0.92 in Q4_0 and all of it in F16 (medians). Half a delta is
# another adapter: whoever accepts that must choose the type with open eyes, and no such type is offered.
LEAST_KEPT: Final = 0.5
KEPT_CODE: Final = "NM011"


class Written(NamedTuple):
    """One output file. ``kept`` has a line for every merged tensor; ``reused`` says that it was there already.

    ``replaced`` says that another one was there, whose place it took; ``adapter_sha256`` is what the file says of its
    adapter.
    """

    path: Path
    nbytes: int
    kept: tuple[DeltaKept, ...] = ()
    reused: bool = False
    replaced: bool = False
    adapter_sha256: str = ""


def write(plan: ConversionPlan, output: Path, progress: Progress = lambda _: None) -> tuple[Written, ...]:
    """Write a plan to ``output``, a file, or a directory where the plan has named files.

    ``progress`` is called with each count of bytes written. Raises Refused where the numbers break a rule on the way,
    ConverterError where a file can't be read or written; no partial file is left.
    """
    targets = _targets(plan, output)
    _protect_sources(targets, plan)
    provenance = _provenance(plan)
    with one_blas_thread(), refusals(plan.report or unjudged(plan.adapter, plan.base, plan.deployment)):
        written = [_write(plan, _with(file, provenance, plan.base), path, progress) for file, path in targets]
    return tuple(one._replace(adapter_sha256=_adapter_of(provenance)) for one in written)


def written_already(plan: ConversionPlan, output: Path) -> tuple[Written, ...] | None:
    """What ``write`` would give, where every file is there with the size and, byte for byte, the header of the plan.

    Else None. A header names the adapter and the plan by their digests, and files appear whole: who knows that the file
    was made from this base needn't write it again. Raises ConverterError where an input can't be read.
    """
    provenance = _provenance(plan)
    named = [(_with(file, provenance, plan.base), output / file.name if file.name else output) for file in plan.files]
    if not all(is_written(file, path) for file, path in named):
        return None
    sha256 = _adapter_of(provenance)
    return tuple(Written(path, gguf_nbytes(file), reused=True, adapter_sha256=sha256) for file, path in named)


def _adapter_of(provenance: tuple[NewKeyValue, ...]) -> str:
    return next(str(entry.value) for entry in provenance if entry.key == ADAPTER_KEY)


def _targets(plan: ConversionPlan, output: Path) -> list[tuple[PlannedFile, Path]]:
    if not plan.files[0].name:
        return [(plan.files[0], output)]
    try:
        output.mkdir(exist_ok=True)
    except OSError as error:
        raise ConverterError(f"{output}: wanted a directory for two files: {error.strerror or error}") from error
    return [(file, output / file.name) for file in plan.files]


def _protect_sources(targets: list[tuple[PlannedFile, Path]], plan: ConversionPlan) -> None:
    sources = input_files(plan.adapter, plan.base)
    for _, path in targets:
        refuse_special(path)
        if path.exists() and any(path.samefile(source) for source in sources):
            raise ConverterError(f"{path}: is an input of this conversion; give another name with -o")
        refuse_to_lose(path)


def _provenance(plan: ConversionPlan) -> tuple[NewKeyValue, ...]:
    found, merged = fingerprint(plan.base), merged_adapters(plan.base)
    return (
        NewKeyValue("adapter_to_gguf.version", __version__),
        *([NewKeyValue(MERGED_KEY, " ".join(merged))] if merged else ()),
        NewKeyValue(ADAPTER_KEY, adapter_digest(plan.adapter)),
        NewKeyValue("adapter_to_gguf.plan.sha256", plan_digest(plan)),
        *([NewKeyValue(FINGERPRINT_KEY, found)] if found else ()),
    )


_SOURCE_KEY: Final = "adapter_to_gguf.source.sha256"


def _with(file: PlannedFile, provenance: tuple[NewKeyValue, ...], base: BaseModel) -> PlannedFile:
    """The file with its provenance. An untied base serves any adapter, so it names its source alone."""
    if file.role == "untied-base":
        provenance = (provenance[0], NewKeyValue(_SOURCE_KEY, base_digest(base)))
    ours = {entry.key for entry in provenance}
    theirs = tuple(entry for entry in file.key_values if entry.key not in ours)
    return file._replace(key_values=(*theirs, *provenance))


def _write(plan: ConversionPlan, file: PlannedFile, path: Path, progress: Progress) -> Written:
    nbytes = gguf_nbytes(file)
    if file.role == "untied-base" and path.exists():
        _check_same_source(file, path, nbytes)
        refuse_different(path, lambda out: write_gguf(file, out, progress))
        return Written(path, nbytes, reused=True)
    _check_space(path, nbytes)
    replaced = path.exists()
    with whole_file(path) as out:
        kept = write_gguf(file, out, progress)
        _check_kept(plan, kept)
        refuse_changed(plan.inputs)
    return Written(path, nbytes, kept, replaced=replaced)


def _check_same_source(file: PlannedFile, path: Path, nbytes: int) -> None:
    wanted = next(
        entry.value for entry in file.key_values if isinstance(entry, NewKeyValue) and entry.key == _SOURCE_KEY
    )
    if path.stat().st_size != nbytes or read_gguf_header(path).kv.get(_SOURCE_KEY) != wanted:
        raise ConverterError(f"{path}: is not the untied copy of this base; give another directory, or delete it first")


def _check_space(path: Path, nbytes: int) -> None:
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise ConverterError(f"{path}: can't be written: {error.strerror or error}") from error
    if free < nbytes:
        raise ConverterError(f"{path}: needs {nbytes:,} bytes, {free:,} are free there; nothing was written")


def _check_kept(plan: ConversionPlan, kept: tuple[DeltaKept, ...]) -> None:
    lost = [(delta.share, delta.tensor) for delta in kept if delta.share is not None and delta.share < LEAST_KEPT]
    if lost:
        share, tensor = min(lost)
        found = f"rounding keeps {max(share, 0.0):.2f} of the adapter's delta (at least {LEAST_KEPT})"
        ways = " or ".join(_ways(plan, {name for _, name in lost}))
        advice = f"{f'use {ways}; ' if ways else ''}nothing was written"
        raise RuleBroken(KEPT_CODE, tensor, f"{found}, in {len(lost)} tensors; {advice}")


def _ways(plan: ConversionPlan, lost: set[str]) -> Iterator[str]:
    """The options that keep more: types of more bits than those that lost it, and factors of their own if allowed."""
    types = {tensor.type.name for file in plan.files for tensor in file.tensors if tensor.name in lost}
    if not types & {"F16", "F32"}:
        yield "--outtype f16"
    if "F32" not in types:
        yield "--outtype f32"
    as_lora = replace(plan.deployment, to="lora")
    if plan.deployment.to == "model" and plan.report and not plan.report.blockers(as_lora.kind):
        yield as_lora.options
