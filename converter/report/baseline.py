"""Waivers as a policy has them, so that a repository in which half fails can take up the gate at once."""

import json
from collections.abc import Sequence

from converter.diagnostics import Report, Severity
from converter.policy import Waiver


def to_waive(report: Report, *, strict: bool) -> Sequence[tuple[str, str]]:
    """The code and the target of each rule by which a report doesn't pass, once."""
    warned = [finding for finding in report.findings if strict and finding.severity is Severity.WARNING]
    return tuple(dict.fromkeys(finding.waived_as for finding in (*report.stopping, *warned)))


def waiver_toml(waiver: Waiver, table: str) -> str:
    """A waiver as TOML; ``table`` is what the policy calls its waivers."""
    of = {"target": waiver.target} if waiver.target else {}
    fields = {"code": waiver.code, **of, "adapter": waiver.adapter, "path": waiver.path, "reason": waiver.reason}
    # A basic string of TOML, which JSON's in ASCII is too: https://toml.io/en/v1.0.0#string.
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())
    return f"\n[[{table}]]\n{lines}expires = {waiver.expires}\n"
