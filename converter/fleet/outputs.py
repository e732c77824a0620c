"""What a row writes: its own output, and an untied base that other rows may have too."""

from pathlib import Path

from converter.conversion import Written, is_untied_base_of, write, written_already
from converter.errors import ConverterError
from converter.fleet.stamps import own_stamps, untied_stamps
from converter.fleet.task import Task
from converter.planning.conversion_plan import ConversionPlan
from converter.planning.untied import LORA_NAME, UNTIED_BASE_NAME


def written(task: Task, planned: ConversionPlan) -> tuple[tuple[Written, ...], bool]:
    """The output, and whether it was whole already: a worker that was killed wrote it, and couldn't say so.

    An untied base comes before the LoRA that needs it. Raises as ``write``.
    """
    row = task.row
    if row.untied_base:
        _write_untied(task, planned, row.untied_base)
    only = LORA_NAME if row.untied_base else None
    if own_stamps(row) not in ((), task.output_before):
        already = written_already(planned, row.output, split_max_size=row.split_max_size, only=only)
        if already:
            return already, True
    return write(planned, row.output, split_max_size=row.split_max_size, only=only), False


def _write_untied(task: Task, planned: ConversionPlan, path: Path) -> None:
    """Write the untied base where it isn't; one that is there is read whole, but once in a run."""
    if not task.untied or task.untied != untied_stamps(task.row):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(planned, path, only=UNTIED_BASE_NAME)
    elif not is_untied_base_of(planned, path):
        raise ConverterError(
            f"{task.row.adapter}: needs another untied base than {path}, which other rows have; "
            "give it one of its own in the column untied_base"
        )
