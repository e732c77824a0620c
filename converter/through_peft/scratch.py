"""A directory for what PEFT made, gone when the conversion is over."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from converter.errors import ConverterError


@contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """A new directory below ``parent``. Raises ConverterError where there can't be one."""
    try:
        directory = TemporaryDirectory(prefix=".adapter-to-gguf-", dir=parent)
    except OSError as error:
        raise ConverterError(f"{parent}: can't be written: {error.strerror or error}") from error
    with directory as name:
        yield Path(name)
