"""What goes to a worker, and what comes back: plain data, which is pickled."""

from pathlib import Path
from typing import Literal, NamedTuple

from converter.derive.base_model import BaseModel
from converter.errors import COULD_NOT, FINE, JUDGED_BAD, NOTHING_LOOKED_AT, Status
from converter.fleet.rows import Row, Steps
from converter.fleet.stamps import Stamps

# fine: done, and proven and pushed where that was asked for. refused: the rules forbid it. unproven: written, but not
# shown to serve the adapter as PEFT does. failed: it could not be done. missing: no adapter is there.
State = Literal["fine", "refused", "unproven", "failed", "missing"]
STATUS: dict[State, Status] = {
    "fine": FINE, "refused": JUDGED_BAD, "unproven": JUDGED_BAD, "failed": COULD_NOT, "missing": NOTHING_LOOKED_AT,
}  # fmt: skip
FINAL: frozenset[State] = frozenset({"fine", "refused", "unproven"})  # what another run would find again


class Task(NamedTuple):
    """A row to be done. ``request`` is all that was asked of it, ``version`` the driver's own.

    ``output_before`` is what was there when it was first begun: whatever is there now instead was written since.
    ``content`` is the adapter's digest at its last end, where nothing but its files' times says that it changed.
    ``untied`` is of its row's untied base, where an earlier row of this run on the same base left it whole;
    ``untied_pushed``: and copied it to the directory of its push.
    """

    row: Row
    base: Path
    steps: Steps
    request: str
    version: str
    base_stamps: Stamps
    output_before: Stamps = ()
    content: str | None = None
    untied: Stamps = ()
    untied_pushed: bool = False

    @property
    def is_alone(self) -> bool:
        """Whether it may have to write what other rows need too, and those wait for it."""
        copies = isinstance(self.row.push, Path)
        return self.row.untied_base is not None and not (self.untied and (self.untied_pushed or not copies))


class Reading(NamedTuple):
    """One reading of a base: what it gave, or why it gave nothing. ``id`` tells it from every other reading."""

    id: str
    base: Path
    stamps: Stamps
    model: BaseModel | None
    failure: str
    node: str
    seconds: float


class Outcome(NamedTuple):
    """What came of a row.

    ``files`` are those of the output. ``unchanged`` says that only its adapter's times had changed, ``adopted`` that
    the output was whole already though nobody had noted it down. ``reading`` is that of the base. Digests and stamps
    are of what was read and written, ``untied`` is that of an untied base which other rows may have too.
    """

    output: Path
    state: State
    message: str = ""
    codes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    nbytes: int = 0
    adapter_sha256: str = ""
    content: str = ""
    adapter_stamps: Stamps = ()
    base_stamps: Stamps = ()
    output_stamps: Stamps = ()
    files: tuple[Path, ...] = ()
    effect_ratio: float | None = None
    untied: Stamps = ()
    pushed: str | None = None
    unchanged: bool = False
    adopted: bool = False
    reading: str = ""
    node: str = ""
    seconds: float = 0.0

    @property
    def status(self) -> Status:
        """The exit status of this adapter."""
        return STATUS[self.state]


class Ended(NamedTuple):
    """A task is over."""

    task: Task
    outcome: Outcome


class Held(NamedTuple):
    """A task's output is whole, and on its way to a hub."""

    task: Task
    outcome: Outcome


class Waits(NamedTuple):
    """Nothing came for a while; ``what`` it is that is waited for, where that is no adapter."""

    what: str = ""


Event = Ended | Held | Reading | Waits
