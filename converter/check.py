"""Judge one adapter: run the rules, stamp what they find, say which were skipped and why."""

from collections.abc import Iterable
from pathlib import Path

from converter.diagnostics import (
    AdapterCheck,
    BaseCheck,
    BaseValuesCheck,
    Deployment,
    Finding,
    NoBaseCheck,
    Problem,
    Report,
    Rule,
    Skipped,
    ValuesCheck,
)
from converter.read.adapter import Adapter
from converter.read.base_model import BaseModel
from converter.rules import RULES


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
    findings: list[Finding] = []
    skipped: list[Skipped] = []
    for rule in rules:
        outcome = _apply(rule, adapter, base, values)
        if isinstance(outcome, str):
            skipped.append(Skipped(rule.code, rule.name, outcome))
        else:
            findings.extend(_stamped(rule, problem) for problem in outcome)
    return Report(adapter.path, _base_text(base), deployment, tuple(findings), tuple(skipped))


def _apply(rule: Rule, adapter: Adapter, base: BaseModel | None, values: bool) -> Iterable[Problem] | str:
    """The rule's problems, or the reason why it is skipped."""
    match rule.check:
        case AdapterCheck(run):
            return run(adapter)
        case NoBaseCheck(run):
            return () if base else run(adapter)
        case BaseCheck(run):
            return run(adapter, base) if base else "no base given (--base)"
        case ValuesCheck(run):
            return run(adapter) if values else "reads the numbers (--values)"
        case BaseValuesCheck(run):
            if base is None:
                return "no base given (--base)"
            return run(adapter, base) if values else "reads the numbers (--values)"


def _stamped(rule: Rule, problem: Problem) -> Finding:
    return Finding(rule.code, rule.name, rule.severity, problem.where, problem.message, problem.blocks)


def _base_text(base: BaseModel | None) -> str | None:
    return str(Path(base.path)) if base else None
