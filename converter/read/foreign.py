"""What a file is that isn't what its name says, as far as its first bytes tell.

Downloads leave such files: a log-in page under the weights' name, or the hub's one line about a file that isn't there.
"""

import re
from typing import Final

from converter.read.files import LFS_MAGIC, Unreadable

_STARTS: Final = (
    (b"PK\x03\x04", "a zip archive, as torch.save writes too"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b\x08", "a gzip archive"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x89HDF", "an HDF5 file"),
    (LFS_MAGIC, "a Git LFS pointer: run `git lfs pull`"),
)
_PICKLE: Final = re.compile(rb"\x80[\x02-\x05][\x8a}\x95ch(]")
_PAGE: Final = re.compile(rb"\s*<(!doctype|html|\?xml|head|body)", re.IGNORECASE)
# huggingface_hub's and the hub's own answers: "Entry not found", "Repository not found", "Access to model ... is
# restricted", "Invalid username or password."
_ANSWER: Final = re.compile(
    rb"\s*((?:(?:entry|repository|revision|file|not) |access to |invalid |error\b).*)", re.IGNORECASE
)


def refuse_foreign(start: bytes) -> None:
    """Raise Unreadable where the first bytes of a file that isn't what it should be tell what it is."""
    kind = next((kind for magic, kind in _STARTS if start.startswith(magic)), None)
    if kind is None and _PICKLE.match(start):
        kind = "a pickle, which can run code when it is loaded"
    if kind is None and _PAGE.match(start):
        kind = "a page of HTML or XML, such as a site's log-in or error page"
    if kind is None and (answer := _ANSWER.match(start)):
        kind = f"an answer of the site it came from, {answer[1].decode(errors='replace').strip()!r}"
    if kind:
        raise Unreadable(f"is {kind}")
