"""``--baseline-until``: waivers for what is there today, added to the policy."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

from converter.derive.adapter import read_adapter
from converter.diagnostics import Report
from converter.digests import adapter_digest
from converter.errors import ConverterError
from converter.policy import NAME, Policy, Waiver, path_from, waivers_table
from converter.read.files import could_not_read, exists, read_whole
from converter.read.limits import SETTINGS_NBYTES
from converter.report.baseline import to_waive, waiver_toml
from converter.report.outcomes import Outcome, Run
from converter.writing.whole_file import whole_file


def write_baseline(run: Run, policy: Policy | None, until: date, reason: str) -> str:
    """Add a waiver for each rule by which an adapter of the run doesn't pass, and say so.

    Without a policy it becomes one of the directory one is in. Raises ConverterError where that can't be written.
    """
    if until < date.today():  # noqa: DTZ011  the day of who runs it
        raise ConverterError(f"--baseline-until {until}: is over already, and would waive nothing")
    path = policy.path if policy else Path(NAME)
    waivers = [waiver for outcome in run.outcomes for waiver in _waivers(outcome, path, until, reason, run.strict)]
    text = "".join(waiver_toml(waiver, waivers_table(path)) for waiver in waivers)
    with could_not_read(path):
        before = read_whole(path, SETTINGS_NBYTES) if exists(path) else b""
    with whole_file(path) as file:
        file.write(before + (text if before else text.lstrip()).encode(errors="replace"))
    return f"{path}: {len(waivers)} waivers until {until}"


def _waivers(outcome: Outcome, policy: Path, until: date, reason: str, strict: bool) -> Iterator[Waiver]:
    faults = to_waive(outcome, strict=strict) if isinstance(outcome, Report) else ()
    if faults:
        if not isinstance(outcome.path, Path):
            raise ConverterError(
                f"{outcome.path}: is judged without its bytes, which a waiver is for; download it first"
            )
        digest = adapter_digest(read_adapter(outcome.path))
        for code, target in faults:
            yield Waiver(code, digest, reason, until, path_from(policy, outcome.path), target=target)
