"""What options of several commands mean."""

from pathlib import Path
from typing import Final

import click

# click's own check of what can be read would end in a usage text.
PATH: Final = click.Path(path_type=Path, readable=False)
INITIAL_ADAPTER: Final = (
    "The adapter as saved before training, where that changed the base (PiSSA, OLoRA, CorDA, LoRA-GA)."
)
