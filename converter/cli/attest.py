"""``--attest`` and ``--verify-attestation``: what a judgement says to those who come after it."""

from datetime import date
from pathlib import Path

import click

from converter.cli.gate import Asked
from converter.derive.base_model import BaseModel
from converter.diagnostics import Report
from converter.errors import COULD_NOT, FINE, JUDGED_BAD, NOTHING_LOOKED_AT, ConverterError, Status, worst
from converter.fingerprint import fingerprint
from converter.policy import Policy
from converter.read.checkpoint import find_adapters
from converter.read.files import is_same, real
from converter.report.attestation import Wanted, as_line, attested, read_statements, statement, with_bytes
from converter.report.outcomes import Run
from converter.report.printable import printable
from converter.writing.whole_file import whole_file


def write_attestation(path: Path, run: Run, policy: Policy | None, base: BaseModel | None) -> None:
    """Write a statement for each adapter that was judged, one a line.

    Raises ConverterError where that can't be done, or where the file would be one of the adapter's own: its bytes would
    then be others.
    """
    reports = [outcome for outcome in run.outcomes if isinstance(outcome, Report)]
    for report in reports:
        adapter = with_bytes(report.path)
        if any(is_same(place, adapter) for place in real(path).parents):
            raise ConverterError(f"{path}: lies in the adapter that it attests; give a place outside of it")
    print_of_base = _fingerprint(base)
    lines = "".join(as_line(statement(report, policy, print_of_base, strict=run.strict)) for report in reports)
    with whole_file(path) as file:
        file.write(lines.encode())


def verify_attestation(
    path: Path, adapters: tuple[Path, ...], policy: Policy | None, asked: Asked, base: BaseModel | None
) -> Status:
    """Say of each adapter whether it is attested to have passed, and give the exit status of all."""
    options = asked.deployment.options if asked.deployment_counts else None
    today = date.today()  # noqa: DTZ011  the day of who asks
    wanted = Wanted(policy, options, _fingerprint(base), today, tuple(map(str, asked.targets)))
    statements = read_statements(path)
    statuses: list[Status] = []
    for given in adapters:
        found = find_adapters(given)
        for closed, why in found.closed:
            click.echo(printable(f"{closed}: can't be read: {why}"), err=True)
            statuses.append(COULD_NOT)
        if not found.adapters:
            click.echo(printable(f"{given}: no adapter there"), err=True)
            statuses.append(NOTHING_LOOKED_AT)
        for adapter in found.adapters:
            result = attested(adapter, statements, wanted)
            click.echo(printable(f"{result.path}: {'attested' if result.passed else 'not attested'}, {result.why}"))
            statuses.append(FINE if result.passed else JUDGED_BAD)
    return worst(statuses)


def _fingerprint(base: BaseModel | None) -> str | None:
    """What the base given by the user is told by; None without one, or where it can't be told."""
    return fingerprint(base) if base else None
