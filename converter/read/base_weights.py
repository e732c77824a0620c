"""Where the weights of a Hugging Face base may lie: in safetensors beside its config.json, and nowhere else.

transformers would take a pickle too, and any file that config.json names (_get_resolved_checkpoint_files in
transformers/modeling_utils.py): what is loaded for a proof or a training is what is judged and converted, or nothing.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from converter.errors import ConverterError
from converter.read.checkpoint import UnreadableIndex, is_local_name, read_index

WEIGHTS_NAME: Final = "model.safetensors"
WEIGHTS_INDEX_NAME: Final = f"{WEIGHTS_NAME}.index.json"
_PICKLES: Final = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")


def refuse_other_weights(directory: Path) -> None:
    """Raise ConverterError where a loader would read anything else than the safetensors that are judged here."""
    _refuse_named_file(directory / "config.json")
    index = directory / WEIGHTS_INDEX_NAME
    if (directory / WEIGHTS_NAME).is_file():
        return
    if index.is_file():
        _refuse_other_shards(index)
    elif pickle := next(_pickles(directory), None):
        raise ConverterError(
            f"{pickle}: is a pickle, which can run code when it is loaded, and is not opened; wanted {WEIGHTS_NAME} "
            "(load the model where you trust it, and save it with save_pretrained)"
        )


def _pickles(directory: Path) -> Iterator[Path]:
    return (path for pattern in _PICKLES for path in sorted(directory.glob(pattern)))


def _refuse_named_file(config: Path) -> None:
    try:
        parsed = json.loads(config.read_bytes())
    except (OSError, ValueError, RecursionError):
        return  # whoever reads the config says what is wrong with it
    named = parsed.get("transformers_weights") if isinstance(parsed, dict) else None
    if named not in (None, WEIGHTS_NAME, WEIGHTS_INDEX_NAME):
        raise ConverterError(
            f"{config}: transformers_weights: found {named!r}, wanted none: a base's weights are in {WEIGHTS_NAME}"
        )


def _refuse_other_shards(index: Path) -> None:
    try:
        names = set(read_index(index).values())
    except (UnreadableIndex, OSError) as error:
        raise ConverterError(f"{index}: {error}") from error
    for name in sorted(names):
        if not is_local_name(name) or not name.endswith(".safetensors"):
            raise ConverterError(f"{index}: names the shard {name!r}, wanted safetensors beside the index")
