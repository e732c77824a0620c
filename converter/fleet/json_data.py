"""What adapter-fleet prints as JSON: docs/fleet.schema.json. Every adapter that isn't fine is in it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from converter.errors import COULD_NOT
from converter.fleet.rows import Row
from converter.fleet.run import Result
from converter.fleet.table import Table
from converter.fleet.task import STATUS, State
from converter.report.documentation import address, documentation, rule_named
from converter.report.envelope import envelope

# Of a refusal each finding has one.
_REMEDIES: Final[dict[State, str | None]] = {
    "refused": None,
    "unproven": "adapter-verify says of this adapter, base and output every figure and tensor",
    "failed": "mend what the message says; the same command, run again, does what failed",
    "missing": "name a directory with an adapter_config.json in the manifest; the same command, run again, looks again",
}
_COLUMNS: Final = ("place", "adapter", "base", "deployment", "output", "state", "status", "message")


class Files(NamedTuple):
    """What a run read and wrote beside its outputs."""

    manifest: Path
    table: Path
    report: Path | None
    export: Path | None


def fleet_data(result: Result, table: Table, rows: Sequence[Row], files: Files) -> dict[str, object]:
    """How a run ended."""
    return envelope(
        "adapter-fleet",
        result.status,
        **{name: path and str(path) for name, path in files._asdict().items()},
        n_adapters=result.states.total(),
        states={state: result.states[state] for state in STATUS},
        n_finished_before=result.n_finished_before,
        not_fine=list(_not_fine(table, rows)),
        unread=[{"path": str(path), "status": COULD_NOT, "message": why} for path, why in result.closed],
    )


def _not_fine(table: Table, rows: Sequence[Row]) -> Iterator[dict[str, object]]:
    for line in table.lines(row.output for row in rows):
        if line["state"] != "fine":
            findings = [_finding(code) for code in line["codes"].split()]
            own = {name: line[name] for name in _COLUMNS}
            yield {**own, "remedy": _REMEDIES[line["state"]], "findings": findings}


def _finding(code: str) -> dict[str, Any]:
    rule = rule_named(code)
    about = documentation(rule).what_to_do if rule else ""
    return {"code": code, "name": rule.name if rule else "", "remedy": about, "help_uri": address(code)}
