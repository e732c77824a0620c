"""The report as SARIF 2.1.0, which code scanning reads.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html. GitHub's own demands: relative URIs, and fingerprints
that stay the same: https://docs.github.com/en/code-security/code-scanning/integrating-with-code-scanning.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from converter.diagnostics import OPTIONS, Finding, Report, Rule, Severity
from converter.report.documentation import Documentation, address, documentation
from converter.report.locations import Locations, fingerprint, relative_uri
from converter.report.outcomes import Run, Unread, level_of
from converter.report.printable import json_line, printable
from converter.rules import RULES
from converter.version import REPOSITORY, __version__

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS: Final = {"error": "error", "warning": "warning", "notice": "note"}
_ROOT: Final = "%SRCROOT%"  # what GitHub calls the repository's root
_FINGERPRINT: Final = "adapterCheck/v1"


def render(run: Run) -> str:
    """The outcomes of a run as one SARIF log, in one line."""
    reports = [outcome for outcome in run.outcomes if isinstance(outcome, Report)]
    codes = {finding.code for report in reports for finding in (*report.findings, *report.hidden)}
    rules = [rule for rule in RULES if rule.code in codes]
    indices = {rule.code: index for index, rule in enumerate(rules)}
    log = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "adapter-check",
                        "version": __version__,
                        "semanticVersion": __version__,
                        "informationUri": REPOSITORY,
                        "rules": [_rule(rule) for rule in rules],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "invocations": [_invocation(run)],
                "results": [result for report in reports for result in _results(report, indices)],
            }
        ],
    }
    return json_line(log) + "\n"


def _rule(rule: Rule) -> dict[str, Any]:
    text = documentation(rule)
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": text.summary},
        "fullDescription": {"text": text.why or text.summary},
        "helpUri": address(rule.code),
        "help": {"text": text.what_to_do, "markdown": _markdown(text)},
        "defaultConfiguration": {"level": "error" if rule.severity is Severity.ERROR else "warning"},
    }


def _markdown(text: Documentation) -> str:
    return f"{text.summary}\n\n**Why it matters:** {text.why}\n\n**What to do:** {text.what_to_do}"


def _invocation(run: Run) -> dict[str, Any]:
    unread = [outcome for outcome in run.outcomes if isinstance(outcome, Unread)]
    return {
        "executionSuccessful": not unread,
        "exitCode": run.status,
        "toolConfigurationNotifications": [
            {"level": "warning", "message": {"text": printable(str(use))}} for use in run.idle_waivers
        ],
        "toolExecutionNotifications": [
            {
                "level": "error",
                "message": {"text": printable(outcome.message)},
                "locations": [{"physicalLocation": {"artifactLocation": {"uri": relative_uri(outcome.path)}}}],
            }
            for outcome in unread
        ],
    }


def _results(report: Report, indices: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    locate = Locations(report.path)
    for finding in report.findings:
        yield _result(report, finding, locate, indices)
    for finding in report.hidden:
        left_out = {"kind": "external", "justification": printable(finding.note)}
        yield {**_result(report, finding, locate, indices), "suppressions": [left_out]}


def _result(report: Report, finding: Finding, locate: Locations, indices: Mapping[str, int]) -> dict[str, Any]:
    return {
        "ruleId": finding.code,
        "ruleIndex": indices[finding.code],
        "level": _LEVELS[level_of(report, finding)],
        "message": {"text": printable(f"{finding.where}: {finding.message}")},
        "locations": [_location(finding, locate)],
        "partialFingerprints": {_FINGERPRINT: fingerprint(report.path, finding)},
        "properties": {
            "deployment": report.deployment.options,
            "target": finding.target or None,
            "blocks": [options for kind, options in OPTIONS.items() if kind in finding.blocks],
        },
    }


def _location(finding: Finding, locate: Locations) -> dict[str, Any]:
    path, line, within = locate(finding)
    artifact = {"uri": relative_uri(path), "uriBaseId": _ROOT}
    region = {"region": {"startLine": line}} if line else {}
    return {
        "physicalLocation": {"artifactLocation": artifact, **region},
        "logicalLocations": [{"fullyQualifiedName": printable(within)}],
    }
