"""Judge one adapter: run the rules, stamp what they find, say which were skipped and why."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.model_names import family, without_cache
from converter.derive.replication import as_trained
from converter.diagnostics import (
    AdapterCheck,
    BaseCheck,
    BaseValuesCheck,
    CannotLookError,
    Check,
    Deployment,
    Finding,
    NoBaseCheck,
    Problem,
    Report,
    Rule,
    Skipped,
    ValuesCheck,
    WhileWriting,
)
from converter.fingerprint import RECORD_NAME, recorded_base
from converter.rules import RULES

_NO_BASE: Final = "no base given (--base)"
_NO_VALUES: Final = "reads the numbers (--values)"
_LEFT_OUT: Final = "left out by --select or --ignore"


def check_adapter(
    adapter: Adapter,
    base: BaseModel | None,
    deployment: Deployment,
    *,
    values: bool = False,
    rules: Iterable[Rule] = RULES,
) -> Report:
    """Judge an adapter, beside its base where there is one, for a deployment. ``values`` reads the numbers too.

    Raises ConverterError where a file can't be read any more.
    """
    base = as_trained(base, adapter) if base else None
    adapter = compared(adapter, base) if base and values else adapter
    findings: list[Finding] = []
    skipped: list[Skipped] = []
    for rule in rules:
        try:
            problems = tuple(_problems(rule.check, adapter, base, values=values))
        except CannotLookError as reason:
            skipped.append(Skipped(rule.code, rule.name, str(reason)))
        else:
            findings.extend(_stamped(rule, problem) for problem in problems)
    path, checked_by = (str(base.path), tuple(_base_checked_by(adapter, base, values=values))) if base else (None, ())
    return Report(adapter.path, path, deployment, tuple(findings), tuple(skipped), base_checked_by=checked_by)


def compared(adapter: Adapter, base: BaseModel) -> Adapter:
    """The adapter, which knows what of it holds the base's own numbers. Raises ConverterError as reading does."""
    if not adapter.saved_modules:
        return adapter
    from converter.values.unchanged import with_unchanged

    return with_unchanged(adapter, base)


def _base_checked_by(adapter: Adapter, base: BaseModel, *, values: bool) -> Iterator[str]:
    """What the adapter brings to tell its base from others of the same shapes; where it doesn't agree, rules say so."""
    if base.tensors and not base.quantization and recorded_base(adapter.path):
        yield RECORD_NAME
    if values and base.tensors and adapter.base_layers:
        yield "the base layer saved beside the LoRA"
    if (
        values
        and base.tensors
        and not base.quantization
        and any(pair.magnitude and not pair.is_embedding for pair in adapter.pairs)
    ):
        yield "DoRA's magnitudes"
    named = without_cache(adapter.config.base_model_name_or_path or "") if adapter.config else None
    if named and base.name and family(named) and family(base.name):
        yield "its name"


def _problems(check: Check, adapter: Adapter, base: BaseModel | None, *, values: bool) -> Iterable[Problem]:
    match check:
        case AdapterCheck(run):
            return run(adapter)
        case NoBaseCheck(run):
            return () if base else run(adapter)
        case BaseCheck(run):
            return run(adapter, _given(base))
        case ValuesCheck(run):
            _require_values(values)
            return run(adapter)
        case BaseValuesCheck(run):
            _require_values(values)
            return run(adapter, _given(base))
        case WhileWriting():
            return ()


def _given(base: BaseModel | None) -> BaseModel:
    if base is None:
        raise CannotLookError(_NO_BASE)
    return base


def _require_values(values: bool) -> None:  # noqa: FBT001  a fact, selects nothing
    if not values:
        raise CannotLookError(_NO_VALUES)


def _stamped(rule: Rule, problem: Problem) -> Finding:
    return Finding(rule.code, rule.name, rule.severity, problem.where, problem.message, problem.blocks)


def without(report: Report, codes: frozenset[str]) -> Report:
    """The report with the rules of ``codes`` left out of the verdict: shown as skipped, what they found as hidden."""
    applied = (rule for rule in RULES if rule.code in codes and not isinstance(rule.check, WhileWriting))
    left_out = tuple(Skipped(rule.code, rule.name, _LEFT_OUT, by_choice=True) for rule in applied)
    return replace(
        report,
        findings=tuple(finding for finding in report.findings if finding.code not in codes),
        skipped=(*(skip for skip in report.skipped if skip.code not in codes), *left_out),
        hidden=tuple(finding for finding in report.findings if finding.code in codes),
    )
