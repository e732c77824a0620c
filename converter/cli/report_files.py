"""Reports that go to files: each appears whole or not at all, and never in the place of an input."""

from pathlib import Path

from converter.diagnostics import Report
from converter.errors import ConverterError
from converter.read.files import exists, is_same, real
from converter.report.formats import rendered
from converter.report.outcomes import Run


def write_report(path: Path, name: str, run: Run) -> None:
    """Write the outcomes of a run to ``path`` in the format of this name, over a report that is there.

    Raises ConverterError where that can't be done, or where a file of an adapter or a base would be lost.
    """
    from converter.writing.whole_file import whole_file

    _refuse_input(path, run)
    with whole_file(path) as file:
        file.write(rendered(name, run).encode())


def _refuse_input(path: Path, run: Run) -> None:
    reports = [outcome for outcome in run.outcomes if isinstance(outcome, Report)]
    inputs = {base for report in reports for base in (report.path, report.base) if base}
    places = [Path(place) for place in inputs if isinstance(place, str | Path)]
    if exists(path) and any(is_same(place, found) for place in places for found in (path, real(path).parent)):
        raise ConverterError(f"{path}: is there already, among the files that were judged; give another place")
