"""A conversion, planned or done, as text for people and as data for machines."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from statistics import median
from typing import TYPE_CHECKING

from converter.diagnostics import Report, Severity
from converter.errors import FINE
from converter.planning.conversion_plan import ConversionPlan, PlannedFile, PlannedTensor
from converter.planning.plan_data import plan_data
from converter.report.envelope import envelope
from converter.report.formats.json import report_data
from converter.report.printable import printable
from converter.report.sizes import size_text
from converter.sources import (
    CopiedBytes,
    Filled,
    Given,
    JoinedColumns,
    JoinedRows,
    Merged,
    NegativeExp,
    Placed,
    Product,
    Rows,
    Scaled,
    Source,
    Stacked,
    StoredColumns,
    StoredRows,
    WideEmbedding,
    Zeros,
)

if TYPE_CHECKING:
    from converter.conversion import Written


def plan_text(plan: ConversionPlan) -> str:
    """What the plan would write, and what becomes of every part of the adapter."""
    lines = [f"plan: {plan.architecture}, {plan.deployment.options}, {size_text(plan.nbytes)} of tensors"]
    for file in plan.files:
        lines += ["", f"{file.name or 'output'}  {_tensors_text(file)}"]
        lines += [
            f"  {t.name:<44} {t.type.name:<6} {_shape(t.shape):<14} {_source_text(t.source)}" for t in _changed(file)
        ]
    lines += _match_lines(plan)
    return "\n".join(map(printable, [*lines, "", *_ledger_lines(plan), *judged_lines(plan.report)]))


def _match_lines(plan: ConversionPlan) -> list[str]:
    rows = [f"  {match.tensor:<44} {match.parameter}: {match.how}" for match in plan.matches]
    return ["", "found by comparing the base with its checkpoint, each row once:", *rows] if rows else []


def _matched_text(plan: ConversionPlan) -> Iterator[str]:
    if plan.matches:
        ways = ", ".join(f"{count} {how}" for how, count in Counter(match.how for match in plan.matches).most_common())
        yield f"found by comparing the base with its checkpoint: {ways}"


def _ledger_lines(plan: ConversionPlan) -> list[str]:
    rows = [f"  {line.kind:<7} {line.fate:<10} {line.key}: {line.how}" for line in plan.ledger]
    return ["ledger: every tensor and config field of the adapter", *rows]


def _changed(file: PlannedFile) -> list[PlannedTensor]:
    return [tensor for tensor in file.tensors if not _is_plain_copy(tensor.name, tensor.source)]


def _is_plain_copy(name: str, source: object) -> bool:
    # A Hugging Face base has names of its own, and only one tensor is copied to another's place.
    return isinstance(source, CopiedBytes) and (source.key == name or name != "output.weight")


def _source_text(source: Source) -> str:
    match source:
        case CopiedBytes(key):
            return f"copy of {key}"
        case Merged():
            return _merged_text(source)
        case Stacked(parts):
            return f"{len(parts)} experts: {_source_text(parts[0])}, ..."
        case Placed():
            return f"{_placed_text(source)}, laid out for the host"
        case WideEmbedding(embedding=embedding):
            return f"{_source_text(embedding)}, the head's delta beside it"
        case rows:
            return _rows_text(rows)


def _rows_text(rows: Rows) -> str:
    match rows:
        case JoinedRows(parts) | JoinedColumns(parts):
            return " and ".join(map(_rows_text, parts))
        case Filled(value=value):
            return f"{value:g} everywhere"
        case NegativeExp(of):
            return f"-exp({_source_text(of)})"
        case Scaled(StoredRows(key)) | StoredRows(key) | StoredColumns(key):
            return key
        case Given():
            return "computed"
        case Zeros():
            return "zeros"


def _placed_text(source: Placed) -> str:
    parts = {_source_text(piece.matrix): None for piece in source.pieces if not isinstance(piece.matrix, Product)}
    return " and ".join(parts)


def _merged_text(source: Merged) -> str:
    text = _source_text(source.base)
    for delta in source.deltas:
        right = f" @ {_source_text(delta.right)}" if delta.right else ""
        text += f" + {delta.scaling:g} * {_source_text(delta.left)}{right}"
    if source.magnitude:
        text = f"({text}), {source.magnitude.of} scaled to {_source_text(source.magnitude.values)}"
    n_replaced = sum(len(replaced.indices) for replaced in source.replaced)
    return f"{text}, {n_replaced} rows replaced" if n_replaced else text


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _tensors_text(file: PlannedFile) -> str:
    copied = sum(_is_plain_copy(tensor.name, tensor.source) for tensor in file.tensors)
    types = Counter(t.type.name for t in _changed(file) if not isinstance(t.source, CopiedBytes))
    parts = [f"{count} as {name}" for name, count in types.most_common()]
    parts += [f"{t.name} a {_source_text(t.source)}" for t in _changed(file) if isinstance(t.source, CopiedBytes)]
    return ", ".join(parts + ([f"{copied} copied byte for byte"] if copied else []))


def written_text(plan: ConversionPlan, written: "tuple[Written, ...]", following: Iterable[str]) -> str:
    """What was written, how the adapter went into it, and the lines of ``following``: what to run next."""
    lines = [
        f"{file.path}{_others(file)}  {size_text(file.nbytes)}  {_written_how(planned, file)}"
        for planned, file in zip(plan.files, written, strict=True)
    ]
    fates = Counter(line.fate for line in plan.ledger if line.kind == "tensor")
    lines.append("adapter tensors: " + ", ".join(f"{count} {fate}" for fate, count in fates.most_common()))
    kept = [(delta.share, delta.tensor) for file in written for delta in file.kept if delta.share is not None]
    if kept:
        (least, tensor), middle = min(kept), median(share for share, _ in kept)
        lines.append(f"delta kept after rounding: {middle:.3f} median, {least:.3f} least ({tensor})")
    if n_without := sum(delta.share is None for file in written for delta in file.kept):
        lines.append(f"tensors whose delta is zero: {n_without}")
    return "\n".join(
        map(printable, [*lines, *_matched_text(plan), *plan.notes, *judged_lines(plan.report), *following])
    )


def _others(file: "Written") -> str:
    return f" and {len(file.shards) - 1} more" if file.shards else ""


def _written_how(planned: PlannedFile, file: "Written") -> str:
    if file.reused:
        return "already there, reused"
    return f"{_tensors_text(planned)}{'; another file was there, and is replaced' if file.replaced else ''}"


def judged_lines(report: Report | None) -> Iterator[str]:
    """What the judgement that let the adapter pass goes past: its warnings, and the rules that could not be applied."""
    warnings = [finding for finding in report.findings if finding.severity is Severity.WARNING] if report else []
    for _, group in groupby(warnings, lambda finding: finding.code):
        first, *more = group
        others = f" (and {len(more)} more)" if more else ""
        yield f"warning {first.code} {first.name}: {first.where}: {first.message}{others}"
    for skip in report.skipped if report else ():
        yield f"not checked: {skip.code} {skip.name}: {skip.reason}"


def conversion_data(plan: ConversionPlan, written: "tuple[Written, ...] | None") -> dict[str, object]:
    """The conversion for JSON: the plan, and where it was written the files with what each tensor kept."""
    data = envelope("adapter-to-gguf", FINE, plan=plan_data(plan))
    if plan.report is not None:
        data["judgement"] = report_data(plan.report, strict=False)
    if written is not None:
        data["files"] = [
            {
                "path": str(file.path),
                "nbytes": file.nbytes,
                **({"shards": [str(path) for path in file.shards]} if file.shards else {}),
                "reused": file.reused,
                "replaced": file.replaced,
                "delta_kept": [{"tensor": d.tensor, "share": d.share, "noise": d.noise} for d in file.kept],
            }
            for file in written
        ]
    return data
