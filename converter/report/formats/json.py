"""The report as JSON: one object for the whole run, one line, a stable schema."""

from typing import TYPE_CHECKING

from converter.diagnostics import OPTIONS, Finding, Report
from converter.report.commands import command
from converter.report.documentation import address, documentation, rule_named
from converter.report.envelope import envelope
from converter.report.outcomes import Run, Unread, status_of
from converter.report.printable import json_line

if TYPE_CHECKING:
    from converter.policy import WaiverUse


def render(run: Run) -> str:
    """The outcomes of a run as one JSON object."""
    reports = [outcome for outcome in run.outcomes if isinstance(outcome, Report)]
    unread = [outcome for outcome in run.outcomes if isinstance(outcome, Unread)]
    data = envelope(
        "adapter-check",
        run.status,
        adapters=[report_data(report, strict=run.strict) for report in reports],
        unread=[_unread_data(outcome) for outcome in unread],
        policy=str(run.policy) if run.policy else None,
        waivers=[_waiver_data(use) for use in run.waivers],
    )
    return json_line(data) + "\n"


def report_data(report: Report, *, strict: bool) -> dict[str, object]:
    """One adapter's report."""
    return {
        "path": str(report.path),
        "base": report.base,
        "base_named_by_adapter": report.base_named_by_adapter,
        "base_checked_by": list(report.base_checked_by),
        "deployment": report.deployment.options,
        "deployment_asked": report.deployment_asked,
        "targets": [
            {
                "name": target.name,
                "form": target.form,
                "evidence": target.evidence,
                "passed": not (stopping := report.stopping_target(target)),
                "blockers": list(dict.fromkeys(finding.code for finding in stopping)),
                "needs": target.needs,
                "note": target.note,
            }
            for target in report.targets
        ],
        "passed": report.passed,
        "status": status_of(report, strict=strict),
        "findings": [_finding_data(report, finding) for finding in report.findings],
        "hidden": [_finding_data(report, finding) for finding in report.hidden],
        "skipped": [
            {"code": skip.code, "name": skip.name, "reason": skip.reason, "by_choice": skip.by_choice}
            for skip in report.skipped
        ],
        "deployments": [
            {"options": options, "blockers": list(report.blockers(kind)), "command": command(report, kind)}
            for kind, options in OPTIONS.items()
        ],
    }


def _finding_data(report: Report, finding: Finding) -> dict[str, object]:
    rule = rule_named(finding.code)
    return {
        "code": finding.code,
        "name": finding.name,
        "severity": finding.severity.value,
        "where": finding.where,
        "message": finding.message,
        "blocks": [options for kind, options in OPTIONS.items() if kind in finding.blocks],
        "stops": report.is_stopped_by(finding),
        "target": finding.target or None,
        "note": finding.note,
        "remedy": documentation(rule).what_to_do if rule else "",
        "help_uri": address(finding.code),
    }


def _waiver_data(use: "WaiverUse") -> dict[str, object]:
    waiver = use.waiver
    return {
        "code": waiver.code,
        "target": waiver.target,
        "adapter": waiver.adapter,
        "reason": waiver.reason,
        "expires": waiver.expires.isoformat() if waiver.expires else None,
        "path": waiver.path,
        "state": use.state,
        "why": use.why,
    }


def _unread_data(unread: Unread) -> dict[str, object]:
    return {"path": str(unread.path), "status": unread.status, "message": unread.message}
