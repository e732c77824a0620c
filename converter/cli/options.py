"""What options of several commands mean."""

import os
from pathlib import Path
from typing import Any, Final

import click

from converter.derive.locate import located_base

# click's own check of what can be read would end in a usage text.
PATH: Final = click.Path(path_type=Path, readable=False)


class _Base(click.Path):
    """A base: a path, or the name of a repository that the hub's cache on this machine has."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return located_base(Path(os.fsdecode(super().convert(value, param, ctx))))


BASE: Final = _Base(path_type=Path, readable=False)

INITIAL_ADAPTER: Final = (
    "The adapter as saved before training, where that changed the base (PiSSA, OLoRA, CorDA, LoRA-GA)."
)
TEXT_ONLY: Final = (
    "Leave out what the adapter changes of a multimodal model's vision and audio parts, each tensor a line of the "
    "ledger: prompts of text alone are answered as by PEFT, pictures are not."
)
RENAME_KEYS: Final = (
    "Read keys that PEFT doesn't load (_orig_mod, module., FSDP's wrappers, a bare AutoModel's) as those it would have "
    "written: PEFT itself serves nothing of them."
)
