"""What options of several commands mean."""

from typing import Final

INITIAL_ADAPTER: Final = (
    "The adapter as saved before training, where that changed the base (PiSSA, OLoRA, CorDA, LoRA-GA)."
)
