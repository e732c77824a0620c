"""A pickle lies beside the adapter. Its opcodes were looked through: it imports nothing but what trainers write.

Why it matters: whoever loads it runs what it says. trl and transformers leave training_args.bin, optimizer.pt and the
like, which no server reads; published beside an adapter they are one more thing to trust.

What to do: leave such files out of what you publish and deploy.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.pickles import ENDINGS, pickles_beside
from converter.diagnostics import DirectoryCheck, Problem, Rule, Severity
from converter.rules.unread import refuse_unread


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each pickle that is harmless as far as its imports tell."""
    harmless = [pickle for pickle in pickles_beside(adapter) if not pickle.fault]
    for pickle in harmless:
        yield Problem(pickle.name, "is a pickle; it imports nothing but what trainers write")
    if not harmless:
        refuse_unread(adapter, ENDINGS)


RULE = Rule("SC004", "pickle-beside", Severity.WARNING, DirectoryCheck(check))
