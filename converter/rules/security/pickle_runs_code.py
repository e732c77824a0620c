"""A pickle beside the adapter imports what no trainer writes, or can't be looked through. It was not loaded.

Why it matters: a pickle may call whatever it imports, from os.system on, the moment that something loads it:
torch.load, a resumed training run, a server that takes every file. torch's weights_only=True was broken twice
(CVE-2025-32434, CVE-2026-24747).

What to do: don't load it. Ask where the adapter comes from, and take the file out of the directory.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.pickles import ENDINGS, pickles_beside
from converter.diagnostics import DirectoryCheck, Problem, Rule, Severity
from converter.rules.unread import refuse_unread


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each of them with what it imports, or why that can't be told."""
    found = [Problem(pickle.name, pickle.fault) for pickle in pickles_beside(adapter) if pickle.fault]
    yield from found
    if not found:
        refuse_unread(adapter, ENDINGS)


RULE = Rule("SC005", "pickle-runs-code", Severity.ERROR, DirectoryCheck(check))
