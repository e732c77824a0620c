"""Which rows another run needn't do: those that ended, of which nothing has changed since."""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from converter.derive.adapter import read_adapter
from converter.derive.locate import named_base
from converter.errors import NOTHING_LOOKED_AT, ConverterError
from converter.fleet.push import place_of
from converter.fleet.rows import Row, Steps, require_adapter
from converter.fleet.stamps import Stamps, adapter_stamps, base_stamps, own_stamps, untied_stamps
from converter.fleet.table import Known, Table
from converter.fleet.task import FINAL, Outcome, State, Task
from converter.version import __version__


class Finished(NamedTuple):
    """A row that ended before, as the table says."""

    row: Row
    state: State


class Unreadable(NamedTuple):
    """A row that no worker needs to look at: the adapter or the base can't be had."""

    task: Task
    outcome: Outcome


class Plan:
    """What becomes of each row, by what the table knows."""

    def __init__(self, table: Table, steps: Steps) -> None:
        self._table, self._steps = table, steps
        self._base_stamps = cache(base_stamps)  # once for all adapters of a base

    def of(self, row: Row) -> Task | Finished | Unreadable:
        """A task, or what needs none."""
        task = Task(row, row.base or Path(), self._steps, "", __version__, ())
        try:
            require_adapter(row)
            task = task._replace(base=row.base or _named_base(row), request=request_of(row, self._steps))
            task = task._replace(base_stamps=self._base_stamps(task.base))
            known = self._table.known(row.output)
            return self._resumed(task, known) if known else _begun(task)
        except ConverterError as error:
            missing = error.status == NOTHING_LOOKED_AT
            return Unreadable(task, Outcome(row.output, "missing" if missing else "failed", str(error)))

    def _resumed(self, task: Task, known: Known) -> Task | Finished:
        now = (str(task.base), task.request, task.base_stamps)
        if now != (known.base, known.request, known.base_stamps) or not _is_whole(task.row, known):
            return _begun(task)
        if known.state not in FINAL or not _has_its_base(task.row, known):
            return task  # the file was written, and what failed came after it: whatever is there now counts as written
        if known.adapter_stamps == adapter_stamps(task.row.adapter, task.row.initial_adapter):
            return Finished(task.row, known.state)
        return _begun(task)._replace(content=known.content)  # who reads it will see whether it changed


def _begun(task: Task) -> Task:
    return task._replace(output_before=own_stamps(task.row))


def _is_whole(row: Row, known: Known) -> bool:
    """Whether the output is the file that was written; one that was refused has none."""
    noted = known.output_stamps[:1] if row.untied_base else known.output_stamps
    return known.state == "refused" or noted == own_stamps(row) != ()


def _has_its_base(row: Row, known: Known) -> bool:
    """Whether the untied base that other rows may have too is the file that was there."""
    noted = known.output_stamps[1:] if row.untied_base else ()
    return known.state == "refused" or noted == untied_stamps(row)


def _named_base(row: Row) -> Path:
    """The base that the adapter's config names. Raises ConverterError where it isn't on this machine."""
    adapter = read_adapter(row.adapter)
    base = named_base(adapter)
    if base is None:
        named = adapter.config.base_model_name_or_path if adapter.config else None
        raise ConverterError(
            f"{row.adapter}: its base {named!r} is not on this machine; give it in the column base, or with --base"
        )
    return base.absolute()


def request_of(row: Row, steps: Steps) -> str:
    """All that is asked of a row beside its adapter and its base, as canonical JSON."""
    asked = {
        "kind": row.deployment.kind,
        "outtype": row.deployment.outtype or "auto",
        "host": row.deployment.host or "auto",
        "quantize": _quantize_of(row),
        "initial_adapter": row.initial_adapter and str(row.initial_adapter),
        "rename_keys": row.rename_keys,
        "text_only": row.text_only,
        "checkpoint": row.checkpoint and str(row.checkpoint),
        "checkpoint_stamps": _stamps_of(row.checkpoint),
        "split_max_size": row.split_max_size,
        "untied_base": row.untied_base and str(row.untied_base),
        "verify": row.verify,
        "prompts": _stamps_of(steps.prompts),
        "push": str(place_of(row, steps, row.output) or ""),
        "version": __version__,
    }
    return json.dumps(asked, sort_keys=True)


def _quantize_of(row: Row) -> list[object] | None:
    quantize = row.deployment.quantize
    return [*map(str, quantize), _stamps_of(quantize.imatrix)] if quantize else None


def _stamps_of(path: Path | None) -> Stamps | None:
    return base_stamps(path) if path else None
