"""The documentation of a rule: its module's docstring, taken apart."""

import sys
import textwrap
from functools import cache
from typing import Final, NamedTuple

from converter.diagnostics import (
    AdapterCheck,
    BaseCheck,
    BaseValuesCheck,
    Check,
    DirectoryCheck,
    EitherCheck,
    NoBaseCheck,
    PolicyCheck,
    Rule,
    TargetCheck,
    ValuesCheck,
    WhileWriting,
)
from converter.rules import RETIRED, RULES
from converter.version import page

_WHY: Final = "Why it matters: "
_WHAT: Final = "What to do: "


class Documentation(NamedTuple):
    """What a rule finds, why that matters, what to do about it: each one paragraph."""

    rule: Rule
    summary: str
    why: str
    what_to_do: str


@cache
def documentation(rule: Rule) -> Documentation:
    """The documentation of a rule, from the docstring of its module."""
    docstring = sys.modules[module_of(rule)].__doc__ or ""
    paragraphs = [" ".join(paragraph.split()) for paragraph in docstring.split("\n\n")]
    return Documentation(rule, paragraphs[0], _after(_WHY, paragraphs), _after(_WHAT, paragraphs))


def module_of(rule: Rule) -> str:
    """The module that a rule lies in."""
    return rule.check.module if isinstance(rule.check, WhileWriting) else rule.check.run.__module__


def address(code: str) -> str:
    """Where a rule's documentation is on the web: codes are never used again, so it stays there."""
    return page(f"docs/rules.md#{code.lower()}")


@cache
def rule_named(code: str) -> Rule | None:
    """The rule of a code or a name, whatever the case; None where there is none."""
    wanted = code.casefold()
    return next((rule for rule in RULES if wanted in (rule.code.casefold(), rule.name)), None)


def explanation(rule: Rule, width: int) -> str:
    """A rule's documentation for a terminal (``--explain``)."""
    text = documentation(rule)
    paragraphs = (text.summary, _WHY + text.why, _WHAT + text.what_to_do, f"Looks at: {looks_at(rule)}.")
    lines = "\n\n".join(textwrap.fill(part, width, break_on_hyphens=False) for part in paragraphs)
    return f"{rule.code} {rule.name} ({rule.severity.value})\n\n{lines}\n\n{address(rule.code)}"


_LOOKS_AT: Final[dict[type[Check], str]] = {
    AdapterCheck: "the adapter's headers and config",
    DirectoryCheck: "the files in the adapter's directory",
    BaseCheck: "the adapter beside its base (--base)",
    EitherCheck: "the adapter's headers and config, and its base where there is one",
    NoBaseCheck: "an adapter without its base",
    ValuesCheck: "the adapter's numbers (not by --headers-only)",
    BaseValuesCheck: "the numbers of adapter and base (--base; not by --headers-only)",
    PolicyCheck: "the adapter beside the limits of a policy (docs/policy.md)",
    TargetCheck: "what the table of a server says (--target; docs/targets.md)",
    WhileWriting: "what adapter-to-gguf writes",
}


def looks_at(rule: Rule) -> str:
    """What a rule needs to be given."""
    return _LOOKS_AT[type(rule.check)]


def rules_page() -> str:
    """docs/rules.md: a table of all rules, then each rule's documentation."""
    source = "Generated from the rules' docstrings: `UPDATE_GOLDEN=1 pytest tests/golden` writes it."
    head = f"# Rules of adapter-check\n\n{source}\n"
    rows = [
        f"| [{rule.code}](#{rule.code.lower()}) | {rule.name} | {rule.severity.value} | {documentation(rule).summary} |"
        for rule in RULES
    ]
    table = "\n".join(("| code | name | severity | finds |", "|---|---|---|---|", *rows))
    return "\n".join((head, table, "", *(_section(documentation(rule)) for rule in RULES), _retired()))


def _retired() -> str:
    """The codes that the page would seem to have forgotten."""
    rows = "\n".join(f"| {rule.code} | {rule.name} | {rule.why} |" for rule in RETIRED)
    return f"## Retired codes\n\nNever used again.\n\n| code | was called | is gone, because |\n|---|---|---|\n{rows}\n"


def _section(text: Documentation) -> str:
    rule = text.rule
    facts = f"{rule.name}, {rule.severity.value}. Looks at {looks_at(rule)}."
    return (
        f"## {rule.code}\n\n{facts}\n\n{text.summary}\n\n**{_WHY.strip()}** {text.why}\n\n"
        f"**{_WHAT.strip()}** {text.what_to_do}\n"
    )


def _after(label: str, paragraphs: list[str]) -> str:
    return next((part.removeprefix(label) for part in paragraphs if part.startswith(label)), "")
