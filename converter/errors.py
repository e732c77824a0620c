"""The one exception that a user can cause, and the exit status each kind of failure ends with."""

from typing import Final, Literal

Status = Literal[0, 1, 2, 3]

FINE: Final = 0
JUDGED_BAD: Final = 1
COULD_NOT: Final = 2
NOTHING_LOOKED_AT: Final = 3

# "Could not look" outranks "nothing there", which outranks "judged bad": over several inputs the worst one counts.
_SEVERITY: Final[dict[Status, int]] = {FINE: 0, JUDGED_BAD: 1, NOTHING_LOOKED_AT: 2, COULD_NOT: 3}


def worst(statuses: list[Status]) -> Status:
    """The exit status of a run over several inputs (2 > 3 > 1 > 0); nothing looked at is 3."""
    return max(statuses, key=_SEVERITY.__getitem__, default=NOTHING_LOOKED_AT)


def how_to_install(extra: str) -> str:
    """The command that installs one of pyproject.toml's extras; no index has the package."""
    return f"run pip install '.[{extra}]' in the clone of adapter-to-gguf"


class ConverterError(Exception):
    """Something a user can cause and mend: names the file, the key, what was found and what was wanted.

    ``status`` is the process's exit status: 1 the adapter's content is bad, 2 the work could not be done (usage,
    permissions, unsupported), 3 there was nothing to look at.
    """

    def __init__(self, message: str, *, status: Status = COULD_NOT) -> None:
        super().__init__(message)
        self.message = message
        self.status: Status = status


class RuleBroken(ConverterError):
    """A fault of the adapter that shows only when its numbers are computed; ``where`` names a tensor or a module.

    ``code`` is the rule's that says more (``adapter-check --explain CODE``). Who judges makes a finding of it.
    """

    def __init__(self, code: str, where: str, message: str) -> None:
        super().__init__(f"{code}: {where}: {message}", status=JUDGED_BAD)
        self.code = code
        self.where = where
        self.found = message
