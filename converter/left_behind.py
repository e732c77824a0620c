"""What a killed process left behind: what is ours by its name and owner, and locked by nobody.

Who writes something locks it (flock), and the system lets go of the lock at every end of a process, kill -9 included.
Whoever writes the next thing in the same place removes those that nobody has. Where there is no flock they stay.
"""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows
    _HAS_LOCKS = False
else:
    _HAS_LOCKS = True


def lock(descriptor: int) -> bool:
    """Whether the file or directory is now this process's, as long as it has it open."""
    if not _HAS_LOCKS:
        return False
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except OSError:  # another's, or a file system without locks
        return False
    return True


def remove_left_behind(place: Path, pattern: str, remove: Callable[[Path], None]) -> None:
    """Remove what processes of this user that are no more left in ``place`` under names like ``pattern``.

    Raises OSError where the directory can't be read.
    """
    if not _HAS_LOCKS:
        return
    for path in place.glob(pattern):
        with suppress(OSError):  # gone by now, a link, or not for us to open
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if _is_ours(descriptor) and lock(descriptor):
                    remove(path)
            finally:
                os.close(descriptor)


def _is_ours(descriptor: int) -> bool:
    found = os.fstat(descriptor)
    return found.st_uid == os.geteuid() and (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode))
