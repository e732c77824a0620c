"""huggingface_hub without a word: a program that prints its own results has no room for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR


@contextmanager
def quiet(*, bars: bool) -> Iterator[None]:
    """With its bars or without, and no warnings: those of a retry tell the signed address."""
    from huggingface_hub.utils import logging
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    level, is_quiet = logging.get_verbosity(), are_progress_bars_disabled()
    logging.set_verbosity(ERROR)
    if not bars:
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if not is_quiet:
            enable_progress_bars()
