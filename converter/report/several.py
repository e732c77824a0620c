"""Several adapters for people: a line for each, what is wrong with those that fail, and at the end what they share.

What a rule is about is told with the first adapter that it refuses, and what was not applied once. Nothing is kept of
an adapter but counts: there may be thousands.
"""

from collections import Counter
from typing import Literal

from converter.diagnostics import Report, Skipped
from converter.errors import FINE, Status
from converter.report.outcomes import Outcome, Unread, concerns, status_of
from converter.report.printable import printable
from converter.report.text import details, not_applied, shown, text_report, text_summary, verdict_line
from converter.rules import RULES

# quiet: a line for each that fails, and no more. verbose: the whole report of each.
Detail = Literal["quiet", "usual", "verbose"]


class Several:
    """The text of each outcome in turn, and what is said of all at the end."""

    def __init__(self, width: int, *, strict: bool, detail: Detail = "usual") -> None:
        self._width, self._strict, self._detail = width, strict, detail
        self._statuses: list[Status] = []
        self._n_adapters: Counter[tuple[str, str, str]] = Counter()  # by code, severity and name of a rule
        self._skipped: dict[Skipped, None] = {}
        self._follows_line = False  # without an empty line behind it

    def text(self, outcome: Outcome) -> str:
        """What is printed of one outcome; empty where that is nothing."""
        status = status_of(outcome, strict=self._strict)
        self._statuses.append(status)
        if isinstance(outcome, Unread):
            return printable(f"{outcome.path}: {outcome.message}")
        text = self._apart(self._of_report(outcome, is_fine=status == FINE))
        self._n_adapters.update({(finding.code, finding.severity.value, finding.name) for finding in shown(outcome)})
        self._skipped.update(dict.fromkeys(skip for skip in outcome.skipped if concerns(outcome, skip)))
        return text

    def _of_report(self, report: Report, *, is_fine: bool) -> str:
        match self._detail:
            case "verbose":
                return text_report(report, self._width, strict=self._strict, every=True) + "\n"
            case "quiet":
                rules = ", ".join(dict.fromkeys(f"{finding.code} {finding.name}" for finding in shown(report)))
                line, _, _ = verdict_line(report, strict=self._strict).partition("\n")
                return "" if is_fine else f"{line}: {rules}" if rules else line
            case _ if is_fine:
                return verdict_line(report, strict=self._strict)
            case _:
                known = {code for code, _, _ in self._n_adapters}
                return details(report, self._width, strict=self._strict, known=known) + "\n"

    def _apart(self, text: str) -> str:
        """A text of many lines, with an empty line before it where a single one is printed last."""
        is_block = "\n" in text
        begin = "\n" if is_block and self._follows_line else ""
        self._follows_line = not is_block
        return begin + text

    def end(self) -> str:
        """What is said of all of them together; empty where that is nothing."""
        if self._detail == "quiet":
            return ""
        order = {rule.code: place for place, rule in enumerate(RULES)}
        told = sorted(self._skipped, key=lambda skip: order[skip.code]) if self._detail == "usual" else []
        skipped = not_applied(told, self._width)
        return self._apart("\n\n".join((*skipped, *self._by_code(), text_summary(self._statuses))))

    def _by_code(self) -> list[str]:
        if not self._n_adapters:
            return []
        rows = (
            f"  {code}  {severity:7}  {n:8}  {name}" for (code, severity, name), n in sorted(self._n_adapters.items())
        )
        return ["\n".join(("By code (--explain CODE says more)", "  code   severity  adapters  rule", *rows))]
