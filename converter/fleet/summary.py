"""What a run comes to, counted from its rows of the table: by base, by rule, and the adapters that aren't fine."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from converter.fleet.rows import Row
from converter.fleet.table import Table

_N_SHOWN: Final = 500  # adapters that aren't fine, of each state: a page of more is slow to open


@dataclass(slots=True)
class OfBase:
    """The adapters of one base."""

    states: Counter[str] = field(default_factory=Counter)
    nbytes: int = 0
    n_readings: int = 0


@dataclass(slots=True)
class Summary:
    """Counts, and for each state but fine the first adapters with the reason."""

    states: Counter[str] = field(default_factory=Counter)
    bases: dict[str, OfBase] = field(default_factory=dict)
    codes: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    nodes: Counter[str] = field(default_factory=Counter)
    not_fine: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    effect_ratios: list[float] = field(default_factory=list)
    nbytes: int = 0
    seconds: float = 0.0
    last: str = ""


def summed_up(table: Table, rows: Sequence[Row]) -> Summary:
    """The summary of the rows of a manifest, those included that ended in earlier runs."""
    summary = Summary()
    readings = table.readings()
    for line in table.lines(row.output for row in rows):
        base = summary.bases.setdefault(line["base"], OfBase(n_readings=readings[line["base"]]))
        base.states[line["state"]] += 1
        base.nbytes += line["nbytes"]
        _count(summary, line)
    return summary


def _count(summary: Summary, line: dict[str, object]) -> None:
    state = str(line["state"])
    summary.states[state] += 1
    summary.codes.update(str(line["codes"]).split())
    summary.warnings.update(str(line["warnings"]).split())
    summary.nodes[str(line["node"])] += 1
    summary.nbytes += int(str(line["nbytes"]))
    summary.seconds += float(str(line["seconds"]))
    summary.last = max(summary.last, str(line["at"]))
    if isinstance(line["effect_ratio"], float):
        summary.effect_ratios.append(line["effect_ratio"])
    listed = summary.not_fine.setdefault(state, [])
    if state != "fine" and len(listed) < _N_SHOWN:
        adapter = str(line["adapter"])
        listed.append((adapter, str(line["message"]).removeprefix(f"{adapter}: ")))
