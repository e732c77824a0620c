"""A file of the tokenizer beside the adapter can't be read.

Why it matters: it may hold tokens, special ids or a chat template that the model must have, and nobody can tell.

What to do: save it again with `tokenizer.save_pretrained(ADAPTER)`; run `git lfs pull` if it is a Git LFS pointer. If
no token was added, delete it.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import DirectoryCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each such file."""
    tokenizer = adapter.tokenizer
    for path, fault in tokenizer.faults if tokenizer else ():
        yield Problem(path.name, fault)


RULE = Rule("ST020", "unreadable-tokenizer", Severity.ERROR, DirectoryCheck(check))
