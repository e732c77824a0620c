"""A directory for what PEFT computed for a plan: gone when the plan is closed, or forgotten, or the process ends."""

import shutil
import weakref
from pathlib import Path
from tempfile import mkdtemp

from converter.errors import ConverterError


class Scratch:
    """A new directory below ``parent``, by default the system's temporary one. Raises ConverterError at no room."""

    def __init__(self, parent: Path | None) -> None:
        try:
            self.path = Path(mkdtemp(prefix=".adapter-to-gguf-", dir=parent))
        except OSError as error:
            raise ConverterError(f"{parent}: can't be written: {error.strerror or error}") from error
        self._remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def close(self) -> None:
        """Remove the directory; once is enough."""
        self._remove()
