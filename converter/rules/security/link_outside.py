"""A file of the adapter is a link that leads out of its directory.

Why it matters: what is published or copied then is another file than the one that was reviewed, and it changes without
a trace in the adapter's directory. Links of the hub's cache into its own blobs are usual and not meant. A file that is
read here is not followed out of its directory: where it is such a link, another rule refuses it.

What to do: put the file itself in place of the link.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from converter.derive.adapter import Adapter
from converter.diagnostics import DirectoryCheck, Problem, Rule, Severity
from converter.read.files import could_not_read, own_places


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each link that leads elsewhere."""
    with could_not_read(adapter.path), os.scandir(adapter.path) as entries:
        links = sorted(entry.name for entry in entries if entry.is_symlink())
    for name in links:
        target = Path(os.path.realpath(adapter.path / name))
        if not any(target.is_relative_to(place) for place in own_places(adapter.path)):
            yield Problem(name, f"is a link to {target}, outside of the adapter's directory")


RULE = Rule("SC006", "link-outside", Severity.WARNING, DirectoryCheck(check))
