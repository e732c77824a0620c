"""What a policy makes of a report: severities, what is left out, and what is waived for a while.

A waiver is for one rule and the very bytes of one adapter, and it ends. One that has lapsed, lacks something or was
written for other bytes waives nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from converter.checking import codes_left_out, without
from converter.diagnostics import Finding, Report
from converter.policy import Policy, Settings, Waiver, WaiverUse
from converter.read.files import real


def settled(report: Report, settings: Settings) -> Report:
    """The report with the severities that the settings give, and without the rules that they leave out."""
    findings = tuple(
        finding._replace(severity=settings.severity.get(finding.code, finding.severity)) for finding in report.findings
    )
    return without(replace(report, findings=findings), codes_left_out(settings.select, settings.ignore))


class Waivers:
    """The waivers of a policy over the adapters of a run; what each of them did is told at the end."""

    def __init__(self, policy: Policy, today: date) -> None:
        """Of ``policy``, on the day ``today``: a waiver is good until its day, and on it."""
        self._policy, self._today = policy, today
        self._used: set[Waiver] = set()
        self._seen: list[tuple[Path, str]] = []
        self._unread: set[str] = set()

    def applied(self, report: Report, digest: Callable[[], str]) -> Report:
        """The report with what is waived among what is hidden. Its digest is asked for where it matters."""
        codes = {waiver.code for waiver in self._policy.waivers}
        if codes.isdisjoint(finding.code for finding in report.findings):
            return report
        if not isinstance(report.path, Path):  # of an adapter on a hub the bytes aren't here, which a waiver is for
            self._unread |= codes & {finding.code for finding in report.findings}
            return report
        bytes_read = digest()
        self._seen.append((report.path, bytes_read))
        waivers = (waiver for waiver in self._policy.waivers if waiver.adapter == bytes_read and self._is_good(waiver))
        good = {(waiver.code, waiver.target): waiver for waiver in waivers}
        self._used |= {good[finding.waived_as] for finding in report.findings if finding.waived_as in good}
        return replace(
            report,
            findings=tuple(finding for finding in report.findings if finding.waived_as not in good),
            hidden=(*report.hidden, *_waived(report.findings, good)),
        )

    def _is_good(self, waiver: Waiver) -> bool:
        return waiver.fault is None and waiver.expires is not None and self._today <= waiver.expires

    def uses(self) -> Iterator[WaiverUse]:
        """What each waiver did, in the policy's order."""
        for waiver in self._policy.waivers:
            yield self._use(waiver)

    def _use(self, waiver: Waiver) -> WaiverUse:
        if waiver.fault or waiver.expires is None:
            return WaiverUse(waiver, "unusable", waiver.fault or "")
        if self._today > waiver.expires:
            return WaiverUse(waiver, "lapsed", f"it ended on {waiver.expires}")
        if waiver in self._used:
            return WaiverUse(waiver, "used")
        found = self._found_at(waiver.path) if waiver.path else ()
        if found and waiver.adapter not in found:
            return WaiverUse(waiver, "other bytes", f"{waiver.path} has the digest {found[0]} now")
        if waiver.code in self._unread:
            return WaiverUse(
                waiver, "unused", "of an adapter on a hub the bytes aren't read that it is for: download it"
            )
        return WaiverUse(waiver, "unused", "no adapter of this run needs it")

    def _found_at(self, path: str) -> Sequence[str]:
        """The digests of the adapters that lay at a waiver's path."""
        wanted = real(real(self._policy.path).parent / path)
        return [digest for seen, digest in self._seen if real(seen) == wanted]


def _waived(findings: Sequence[Finding], good: Mapping[tuple[str, str], Waiver]) -> Iterator[Finding]:
    for finding in findings:
        waiver = good.get(finding.waived_as)
        if waiver:
            yield finding._replace(note=f"waived until {waiver.expires}: {waiver.reason}")
