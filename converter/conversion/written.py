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
from converter.planning.shards import shard_paths, shards
from converter.read.gguf_header import read_gguf_header
from converter.version import __version__
from converter.writing.blocks import DeltaKept
from converter.writing.gguf_file import Progress, gguf_nbytes, is_written, write_gguf, write_ggufs
from converter.writing.one_blas_thread import one_blas_thread
from converter.writing.outputs import refuse_different, refuse_special, refuse_to_lose
from converter.writing.whole_file import whole_files

# Real SmolLM2 tensors keep 0.96 of their delta in BF16, 0.92 in Q4_0 and all of it in F16 (medians). Half a delta is
# another adapter: whoever accepts that must choose the type with open eyes, and no such type is offered.
LEAST_KEPT: Final = 0.5
KEPT_CODE: Final = "NM011"


class Written(NamedTuple):
    """One output. ``kept`` has a line for every merged tensor; ``reused`` says that it was there already.

    ``replaced`` says that another one was there, whose place it took; ``adapter_sha256`` is what the file says of its
    adapter. Where it was split, ``shards`` are its files, ``path`` is the first of them, which llama.cpp is given, and
    ``nbytes`` the size of all.
    """

    path: Path
    nbytes: int
    kept: tuple[DeltaKept, ...] = ()
    reused: bool = False
    replaced: bool = False
    adapter_sha256: str = ""
    shards: tuple[Path, ...] = ()


def write(
    plan: ConversionPlan,
    output: Path,
    progress: Progress = lambda _: None,
    *,
    split_max_size: int | None = None,
    only: str | None = None,
) -> tuple[Written, ...]:
    """Write a plan to ``output``, a file, or a directory where the plan has named files.

    ``progress`` is called with each count of bytes written. ``split_max_size`` (bytes of tensors) makes of a model that
    is larger several files: NAME-00001-of-00003.gguf for NAME.gguf. ``only`` is the name of one of the plan's files: it
    alone is written, and ``output`` is its path. Raises Refused where the numbers break a rule on
    the way, ConverterError where a file can't be read or written; no partial file is left, and of several all or none.
    """
    if split_max_size and plan.deployment.to != "model":
        raise ConverterError("only a merged model is split: --split-max-size needs --to model")
    targets = _targets(plan, output, split_max_size, only)
    if plan.files[0].name and not only:
        _make_directory(output)
    _protect_sources(targets, plan)
    provenance = _provenance(plan)
    with one_blas_thread(), refusals(plan.report or unjudged(plan.adapter, plan.base, plan.deployment)):
        written = [_write(plan, _with(target, provenance, plan.base), progress) for target in targets]
    return tuple(one._replace(adapter_sha256=_adapter_of(provenance)) for one in written)


def written_already(
    plan: ConversionPlan, output: Path, *, split_max_size: int | None = None, only: str | None = None
) -> tuple[Written, ...] | None:
    """What ``write`` would give, where every file is there with the size and, byte for byte, the header of the plan.

    Else None. A header names the adapter and the plan by their digests, and files appear whole: who knows that the file
    was made from this base needn't write it again. Raises ConverterError where an input can't be read.
    """
    provenance = _provenance(plan)
    targets = [_with(target, provenance, plan.base) for target in _targets(plan, output, split_max_size, only)]
    if not all(map(_is_there, targets)):
        return None
    sha256 = _adapter_of(provenance)
    return tuple(
        Written(it.paths[0], it.nbytes, reused=True, adapter_sha256=sha256, shards=it.shards) for it in targets
    )


def is_untied_base_of(plan: ConversionPlan, path: Path) -> bool:
    """Whether ``path``, which somebody knows to be an untied copy of this base, is just the one of this plan.

    Told by size and header: to compare all of it, ``write`` it again.
    """
    (file,) = (file for file in plan.files if file.role == "untied-base")
    try:
        source = read_gguf_header(path).kv.get(_SOURCE_KEY)
    except ConverterError:
        return False
    provenance = (NewKeyValue("adapter_to_gguf.version", __version__), NewKeyValue(_SOURCE_KEY, str(source)))
    return _is_there(_stated(_Target((file,), (path,)), provenance))


def _is_there(target: "_Target") -> bool:
    return all(is_written(*found) for found in zip(target.files, target.paths, strict=True))


def _adapter_of(provenance: tuple[NewKeyValue, ...]) -> str:
    return next(str(entry.value) for entry in provenance if entry.key == ADAPTER_KEY)


class _Target(NamedTuple):
    """One output: the files that it is in, and where they go."""

    files: tuple[PlannedFile, ...]
    paths: tuple[Path, ...]

    @property
    def nbytes(self) -> int:
        return sum(map(gguf_nbytes, self.files))

    @property
    def shards(self) -> tuple[Path, ...]:
        return self.paths if len(self.paths) > 1 else ()


def _targets(plan: ConversionPlan, output: Path, split_max_size: int | None, only: str | None) -> list[_Target]:
    if only:
        return [_Target((file,), (output,)) for file in plan.files if file.name == only]
    if not plan.files[0].name:
        (file,) = plan.files
        files = shards(file, split_max_size) if split_max_size else (file,)
        return [_Target(files, tuple(shard_paths(output, len(files))))]
    return [_Target((file,), (output / file.name,)) for file in plan.files]


def _make_directory(output: Path) -> None:
    try:
        output.mkdir(exist_ok=True)
    except OSError as error:
        raise ConverterError(f"{output}: wanted a directory for two files: {error.strerror or error}") from error


def _protect_sources(targets: list[_Target], plan: ConversionPlan) -> None:
    sources = {*input_files(plan.adapter, plan.base), *(stamp.path for stamp in plan.inputs)}
    for path in (path for target in targets for path in target.paths):
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


def _with(target: _Target, provenance: tuple[NewKeyValue, ...], base: BaseModel) -> _Target:
    """With its provenance in the first file. An untied base serves any adapter, so it names its source alone."""
    if target.files[0].role == "untied-base":
        provenance = (provenance[0], NewKeyValue(_SOURCE_KEY, base_digest(base)))
    return _stated(target, provenance)


def _stated(target: _Target, provenance: tuple[NewKeyValue, ...]) -> _Target:
    file, *others = target.files
    ours = {entry.key for entry in provenance}
    theirs = tuple(entry for entry in file.key_values if entry.key not in ours)
    return target._replace(files=(file._replace(key_values=(*theirs, *provenance)), *others))


def _write(plan: ConversionPlan, target: _Target, progress: Progress) -> Written:
    path, nbytes = target.paths[0], target.nbytes
    if target.files[0].role == "untied-base" and path.exists():
        (file,) = target.files
        _check_same_source(file, path, nbytes)
        refuse_different(path, lambda out: write_gguf(file, out, progress))
        return Written(path, nbytes, reused=True)
    _check_space(path, nbytes)
    replaced = any(path.exists() for path in target.paths)
    with whole_files(target.paths) as outs:
        kept = write_ggufs(list(zip(target.files, outs, strict=True)), progress)
        _check_kept(plan, kept)
        refuse_changed(plan.inputs)
    return Written(path, nbytes, kept, replaced=replaced, shards=target.shards)


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
    quantize = plan.deployment.quantize
    least = quantize.least_kept if quantize else LEAST_KEPT
    lost = [(delta.share, delta.tensor) for delta in kept if delta.share is not None and delta.share < least]
    if lost and least:  # the rounding may turn a delta round: 0 accepts that too
        share, tensor = min(lost)
        found = f"rounding keeps {max(share, 0.0):.2f} of the adapter's delta (at least {least:g})"
        ways = " or ".join(_ways(plan, {name for _, name in lost}))
        advice = f"{f'use {ways}; ' if ways else ''}nothing was written"
        raise RuleBroken(KEPT_CODE, tensor, f"{found}, in {len(lost)} tensors; {advice}")


def _ways(plan: ConversionPlan, lost: set[str]) -> Iterator[str]:
    """The options that keep more: types of more bits than those that lost it, and factors of their own if allowed."""
    if plan.deployment.quantize:
        yield "another type (--compare-types shows what each keeps)"
        yield "--least-kept 0, which accepts that"
        return
    types = {tensor.type.name for file in plan.files for tensor in file.tensors if tensor.name in lost}
    if not types & {"F16", "F32"}:
        yield "--outtype f16"
    if "F32" not in types:
        yield "--outtype f32"
    as_lora = replace(plan.deployment, to="lora")
    if plan.deployment.to == "model" and plan.report and not plan.report.blockers(as_lora.kind):
        yield as_lora.options
