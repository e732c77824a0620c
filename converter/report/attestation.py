"""What a judgement attests, in the words of in-toto: these bytes, by these rules and this policy, with this result.

Statement v1 with the predicate test-result/v0.1: https://github.com/in-toto/attestation/tree/main/spec. The subject is
named as OpenSSF model signing names it, so that a signature of the same directory and an attestation agree.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

from converter.diagnostics import Report, Severity
from converter.digests import directory_digest, file_digest_of
from converter.errors import ConverterError
from converter.policy import Policy
from converter.read.files import Unreadable, could_not_read, read_whole
from converter.read.hub_address import Address
from converter.read.limits import ATTESTATION_NBYTES
from converter.read.strict_json import json_object
from converter.report.outcomes import rules_asked, status_of
from converter.version import __version__

_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://in-toto.io/attestation/test-result/v0.1"
_ENVELOPE: Final = "application/vnd.in-toto+json"


def with_bytes(adapter: Path | Address) -> Path:
    """The adapter's directory. Raises ConverterError for one on a hub: an attestation names bytes that aren't read."""
    if not isinstance(adapter, Path):
        raise ConverterError(f"{adapter}: is judged without its bytes, which an attestation names; download it first")
    return adapter


def statement(report: Report, policy: Policy | None, base_fingerprint: str | None, *, strict: bool) -> dict[str, Any]:
    """The statement about one adapter. Raises ConverterError where its files can't be read."""
    directory = with_bytes(report.path)
    levels = {
        severity: sorted({finding.code for finding in report.findings if finding.severity is severity})
        for severity in Severity
    }
    skipped = {skip.code for skip in report.skipped}
    found = {code for codes in levels.values() for code in codes}
    return {
        "_type": _STATEMENT,
        "subject": [{"name": directory.absolute().name, "digest": {"sha256": directory_digest(directory)}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "result": _result(report, strict=strict),
            "configuration": [*_configuration(policy)],
            "passedTests": [rule.code for rule in rules_asked(report) if rule.code not in skipped | found],
            "warnedTests": levels[Severity.WARNING],
            "failedTests": levels[Severity.ERROR],
            # Beyond the predicate's own fields, which readers pass over.
            "skippedTests": sorted(skipped),
            "waivedTests": [{"code": hidden.code, "note": hidden.note} for hidden in report.hidden],
            "waivedUntil": min((day.isoformat() for day in _days(report, policy)), default=None),
            "deployment": report.deployment.options if report.deployment_asked else None,
            "targets": [target.name for target in report.targets],
            "base": {"named_by_adapter": report.base_named_by_adapter, "fingerprint": base_fingerprint},
            "tool": {"name": "adapter-check", "version": __version__},
        },
    }


def _result(report: Report, *, strict: bool) -> str:
    if status_of(report, strict=strict):
        return "FAILED"
    return "WARNED" if any(finding.severity is Severity.WARNING for finding in report.findings) else "PASSED"


def _configuration(policy: Policy | None) -> Iterator[dict[str, Any]]:
    if policy:
        yield {"name": policy.path.name, "digest": {"sha256": file_digest_of(policy.path)}}


def _days(report: Report, policy: Policy | None) -> Iterator[date]:
    """When the waivers end by which the report passes."""
    for hidden in report.hidden:
        for waiver in policy.waivers if policy else ():
            if waiver.expires and hidden.note.startswith(f"waived until {waiver.expires}:"):
                yield waiver.expires


# --- Telling whether one holds ----------------------------------------------------------------------------------------


class Wanted(NamedTuple):
    """By what, for what, on which base and until when bytes are to have passed; without a fingerprint on any base.

    ``deployment`` is None where only ``targets`` are wanted.
    """

    policy: Policy | None
    deployment: str | None
    base_fingerprint: str | None
    today: date
    targets: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """All that they are to have passed for."""
        return ", ".join((*((self.deployment,) if self.deployment else ()), *self.targets))


class Attested(NamedTuple):
    """Whether these bytes passed; ``why`` says what is attested, or what is missing."""

    path: Path
    passed: bool
    why: str


def read_statements(path: Path) -> list[Mapping[str, Any]]:
    """The statements of a file, one a line, as they are or in DSSE envelopes, whose signatures are not looked at.

    Raises ConverterError where it holds anything else.
    """
    with could_not_read(path):
        try:
            lines = read_whole(path, ATTESTATION_NBYTES).splitlines()
            return [_statement(line) for line in lines if line.strip()]
        except (Unreadable, ValueError) as error:
            raise ConverterError(f"{path}: is no file of in-toto statements, one a line: {error}") from error


def _statement(line: bytes) -> Mapping[str, Any]:
    found = json_object(line)
    if found.get("payloadType") == _ENVELOPE:
        found = json_object(base64.b64decode(str(found.get("payload")), validate=True))
    if found.get("_type") != _STATEMENT:
        raise Unreadable(f"_type is {str(found.get('_type'))[:80]!r}, wanted {_STATEMENT!r}")
    return found


def attested(adapter: Path, statements: list[Mapping[str, Any]], wanted: Wanted) -> Attested:
    """Whether a statement says that the bytes of ``adapter`` passed as is wanted.

    Raises ConverterError where they can't be read.
    """
    digest = directory_digest(adapter)
    of_these = [found for found in statements if _subject(found) == digest and found.get("predicateType") == _PREDICATE]
    if not of_these:
        return Attested(adapter, passed=False, why=f"nothing is attested of sha256:{digest}")
    whys = [_why_not(found.get("predicate"), wanted) for found in of_these]
    why_not = next((why for why in whys if why), "")
    passed = None in whys
    return Attested(adapter, passed, f"sha256:{digest} passed for {wanted.what}" if passed else why_not)


def _subject(found: Mapping[str, Any]) -> object:
    try:
        return found["subject"][0]["digest"]["sha256"]
    except (KeyError, IndexError, TypeError):
        return None


def _why_not(predicate: object, wanted: Wanted) -> str | None:
    """Why a predicate doesn't say that it passed; None where it does."""
    if not isinstance(predicate, dict) or predicate.get("result") not in ("PASSED", "WARNED"):
        return "it failed"
    judged_for = predicate.get("targets")
    missing = set(wanted.targets) - set(judged_for if isinstance(judged_for, list) else ())
    if missing or (wanted.deployment and predicate.get("deployment") != wanted.deployment):
        judged = [predicate.get("deployment"), *(judged_for if isinstance(judged_for, list) else ())]
        return f"it was judged for {', '.join(map(str, filter(None, judged)))}, not for {wanted.what}"
    if predicate.get("configuration") != [*_configuration(wanted.policy)]:
        return "it was judged by another policy"
    base = predicate.get("base")
    if wanted.base_fingerprint and not (isinstance(base, dict) and base.get("fingerprint") == wanted.base_fingerprint):
        return "it was judged on another base"
    until = predicate.get("waivedUntil")
    return f"a waiver that it passed by ended on {until}" if until and str(until) < wanted.today.isoformat() else None


def as_line(data: Mapping[str, Any]) -> str:
    """A statement as one line, the same for the same statement."""
    return json.dumps(data, sort_keys=True, separators=(",", ":")) + "\n"
