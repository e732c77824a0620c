"""A refusal: one type, with the report that says why, whatever found the fault and when."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import Deployment, Finding, Report
from converter.errors import JUDGED_BAD, ConverterError, RuleBroken
from converter.rules import RULES


class Refused(ConverterError):
    """The adapter can't be deployed this way; ``report`` says why."""

    def __init__(self, report: Report) -> None:
        codes = ", ".join(dict.fromkeys(finding.code for finding in report.stopping))
        super().__init__(f"{report.path}: refused for {report.deployment.options}: {codes}", status=JUDGED_BAD)
        self.report = report


@contextmanager
def refusals(report: Report) -> Iterator[None]:
    """Turn a fault that shows only in the numbers into a Refused. ``report`` is the judgement so far."""
    try:
        yield
    except RuleBroken as broken:
        rule = next(rule for rule in RULES if rule.code == broken.code)
        blocked = frozenset({report.deployment.kind})
        finding = Finding(rule.code, rule.name, rule.severity, broken.where, broken.found, blocked)
        raise Refused(replace(report, findings=(*report.findings, finding))) from broken


def unjudged(adapter: Adapter, base: BaseModel, deployment: Deployment) -> Report:
    """The report of a plan that nobody judged: nothing found, nothing skipped."""
    return Report(adapter.path, str(base.shown_path), deployment, (), ())
