"""The report as JUnit's XML: a suite for each adapter, a test for each rule.

The dialect that Jenkins, GitLab and Azure read: https://github.com/testmoapp/junitxml.
"""

from collections.abc import Iterator
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element, SubElement

from converter.diagnostics import Finding, Report
from converter.report.outcomes import Outcome, Run, Unread, level_of, rules_asked
from converter.report.printable import printable


def render(run: Run) -> str:
    """One document for all outcomes of a run."""
    root = Element("testsuites", name="adapter-check")
    for outcome in run.outcomes:
        suite = SubElement(root, "testsuite", name=printable(str(outcome.path)))
        suite.extend(_tests(outcome, strict=run.strict))
        _count(suite)
    _count(root)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _tests(outcome: Outcome, *, strict: bool) -> Iterator[Element]:
    match outcome:
        case Unread(_, _, message):
            test = Element("testcase", classname="adapter-check", name="read")
            SubElement(test, "error", message=printable(message))
            yield test
        case Report():
            yield from _rules(outcome, strict=strict)


def _rules(report: Report, *, strict: bool) -> Iterator[Element]:
    skipped = {skip.code: skip for skip in report.skipped}
    for rule in rules_asked(report):
        test = Element("testcase", classname="adapter-check", name=f"{rule.code} {rule.name}")
        findings = [finding for finding in report.findings if finding.code == rule.code]
        if skip := skipped.get(rule.code):
            # Skipped is not passed: by --strict it fails, unless the user left the rule out.
            kind = "failure" if strict and not skip.by_choice else "skipped"
            SubElement(test, kind, message=printable(skip.reason))
        elif findings:
            _tell(test, report, findings, strict=strict)
        yield test


def _tell(test: Element, report: Report, findings: list[Finding], *, strict: bool) -> None:
    levels = {level_of(report, finding) for finding in findings}
    fails = "error" in levels or (strict and "warning" in levels)
    lines = [printable(f"{finding.where}: {finding.message}") for finding in findings]
    element = SubElement(test, "failure", message=lines[0]) if fails else SubElement(test, "system-out")
    element.text = "\n".join(lines)


def _count(suite: Element) -> None:
    tests = [*suite.iter("testcase")]
    for name, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(sum(test.find(kind) is not None for test in tests)))
    suite.set("tests", str(len(tests)))
