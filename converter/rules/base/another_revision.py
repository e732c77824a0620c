"""The adapter was trained on another commit of the base's repository than the one given.

Why it matters: a repository's weights change between revisions without a change of name or shape.

What to do: download the revision that adapter_config.json states (`hf download REPOSITORY --revision COMMIT`), and
give its directory with --base.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import BaseCheck, Problem, Rule, Severity

_COMMIT: Final = r"[0-9a-f]{40}"


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield a pinned commit that is not the snapshot's. A branch or a tag names no commit."""
    pinned = adapter.config.raw.get("revision") if adapter.config else None
    snapshot = _snapshot(base.path)
    if isinstance(pinned, str) and re.fullmatch(_COMMIT, pinned) and snapshot and pinned != snapshot:
        yield Problem("revision", f"is {pinned}, but the base given is the snapshot {snapshot}")


def _snapshot(path: Path) -> str | None:
    """The commit in a path of the hub's cache, ``models--ORGANISATION--NAME/snapshots/COMMIT``."""
    parts = path.absolute().parts
    after = (commit for folder, commit in pairwise(parts) if folder == "snapshots")
    return next((commit for commit in after if re.fullmatch(_COMMIT, commit)), None)


RULE = Rule("BM011", "another-revision", Severity.WARNING, BaseCheck(check))
