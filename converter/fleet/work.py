"""One adapter, from its directory to its output: judged, converted, and if asked for proven and pushed."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic

from converter.conversion import Refused, Written, plan
from converter.derive.adapter import Adapter, read_adapter, text_part, with_renamed_keys
from converter.derive.base_model import BaseModel, read_base_model
from converter.derive.locate import read_initial_adapter
from converter.derive.untabled import with_checkpoint
from converter.diagnostics import Severity
from converter.errors import NOTHING_LOOKED_AT, ConverterError
from converter.fleet.outputs import written
from converter.fleet.rows import Row, require_adapter
from converter.fleet.stamps import adapter_content, adapter_stamps, base_stamps, own_stamps, untied_stamps
from converter.fleet.task import Outcome, Reading, State, Task
from converter.planning.conversion_plan import ConversionPlan
from converter.version import __version__


def read_base(base: Path, node: str = "") -> Reading:
    """Read a base once, for every adapter on it. What keeps it from being read is part of the answer."""
    begin, identity = monotonic(), os.urandom(8).hex()
    try:
        stamps, model, failure = base_stamps(base), read_base_model(base), ""
    except ConverterError as error:
        stamps, model, failure = (), None, str(error)
    return Reading(identity, base, stamps, model, failure, node, monotonic() - begin)


def done(task: Task, reading: Reading) -> Outcome:
    """Do one row. Whatever keeps it from being done is an outcome too."""
    begin = monotonic()
    try:
        outcome = _done(task, reading)
    except Refused as refused:
        codes = tuple(dict.fromkeys(finding.code for finding in refused.report.stopping))
        outcome = _judged(task, Outcome(task.row.output, "refused", str(refused), codes))
    except ConverterError as error:
        state: State = "missing" if error.status == NOTHING_LOOKED_AT else "failed"
        outcome = Outcome(task.row.output, state, str(error))
    except MemoryError:
        outcome = Outcome(task.row.output, "failed", "there is not enough memory for this")
    except OSError as error:
        outcome = Outcome(task.row.output, "failed", _words(error))
    return outcome._replace(reading=reading.id, seconds=monotonic() - begin)


def _words(error: ConverterError | OSError) -> str:
    return f"{error.filename}: {error.strerror or error}" if isinstance(error, OSError) else str(error)


def _judged(task: Task, outcome: Outcome) -> Outcome:
    """The outcome with what it was made of, so that another run sees whether that is still the same."""
    try:
        row = task.row
        stamps = adapter_stamps(row.adapter, row.initial_adapter)
        content = adapter_content(row.adapter, row.initial_adapter)
    except ConverterError as error:
        return Outcome(task.row.output, "failed", str(error))
    return outcome._replace(adapter_stamps=stamps, content=content, base_stamps=task.base_stamps)


def _done(task: Task, reading: Reading) -> Outcome:
    row = task.row
    model = _base(task, reading)
    if row.checkpoint:
        model = with_checkpoint(model, row.checkpoint)
    adapter = _adapter(row)
    before = adapter_stamps(row.adapter, row.initial_adapter)
    content = adapter_content(row.adapter, row.initial_adapter)
    made_of = Outcome(row.output, "fine", content=content, adapter_stamps=before, base_stamps=task.base_stamps)
    if content == task.content:
        return made_of._replace(unchanged=True)
    row.output.parent.mkdir(parents=True, exist_ok=True)
    with plan(adapter, model, row.deployment, scratch=row.output.parent) as planned:
        files, adopted = written(task, planned)
        made_of = made_of._replace(warnings=_warnings(planned))
    if adapter_stamps(row.adapter, row.initial_adapter) != before:
        raise ConverterError(f"{row.adapter}: was changed while it was converted; run it again")
    outcome = made_of._replace(
        nbytes=sum(one.nbytes for one in files), adapter_sha256=files[0].adapter_sha256, adopted=adopted,
        output_stamps=own_stamps(row), untied=untied_stamps(row),
        files=tuple(path for one in files for path in one.shards or (one.path,)),
    )  # fmt: skip
    try:
        return _after(task, adapter, files, outcome)
    except (ConverterError, OSError) as error:  # the output stays, and another run needn't write it again
        return outcome._replace(state="failed", message=_words(error))


def _base(task: Task, reading: Reading) -> BaseModel:
    if task.version != __version__:
        raise ConverterError(f"this node has adapter-to-gguf {__version__}, the driver {task.version}; install one")
    if reading.model is None:
        raise ConverterError(reading.failure)
    if not reading.stamps == task.base_stamps == base_stamps(task.base):
        raise ConverterError(f"{task.base}: was changed while the fleet was under way; run it again")
    return reading.model


def _adapter(row: Row) -> Adapter:
    require_adapter(row)
    adapter = read_adapter(row.adapter)
    adapter = with_renamed_keys(adapter) if row.rename_keys else adapter
    adapter = text_part(adapter) if row.text_only else adapter
    return replace(adapter, initial=read_initial_adapter(row.initial_adapter)) if row.initial_adapter else adapter


def _warnings(planned: ConversionPlan) -> tuple[str, ...]:
    findings = planned.report.findings if planned.report else ()
    return tuple(dict.fromkeys(finding.code for finding in findings if finding.severity is Severity.WARNING))


def _after(task: Task, adapter: Adapter, files: Sequence[Written], outcome: Outcome) -> Outcome:
    """Proven and pushed, as asked: what isn't proven goes nowhere."""
    if task.row.verify:
        from converter.fleet.proof import proven

        outcome = proven(task, adapter, files, outcome)
    if outcome.state != "fine":
        return outcome
    from converter.fleet.push import copied

    return outcome._replace(pushed=copied(task, outcome))
