"""What transformers may read of a Hugging Face base: what is judged here, within the same limits.

Its weights lie in safetensors beside its config.json, and nowhere else.

transformers would take a pickle too, and any file that config.json names (_get_resolved_checkpoint_files in
transformers/modeling_utils.py): what is loaded for a proof or a training is what is judged and converted, or nothing.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from converter.errors import ConverterError
from converter.read.base_files import HuggingfaceFiles, read_base_files
from converter.read.checkpoint import pickles
from converter.read.files import could_not_read, inside, named, require_readable
from converter.read.limits import CONFIG_NBYTES, TOKENIZER_NBYTES

WEIGHTS_NAME: Final = "model.safetensors"
_NAMED: Final = (None, WEIGHTS_NAME, f"{WEIGHTS_NAME}.index.json")
# The files that transformers looks for beside the weights, by name (transformers/tokenization_utils_base.py,
# transformers/processing_utils.py, transformers/generation/configuration_utils.py; transformers 5.23).
_TEXTS: Final[Mapping[str, int]] = {
    "generation_config.json": CONFIG_NBYTES,
    "processor_config.json": CONFIG_NBYTES,
    "preprocessor_config.json": CONFIG_NBYTES,
    "tokenizer*.json": TOKENIZER_NBYTES,
    "added_tokens.json": TOKENIZER_NBYTES,
    "special_tokens_map.json": TOKENIZER_NBYTES,
    "vocab.*": TOKENIZER_NBYTES,
    "merges.txt": TOKENIZER_NBYTES,
    "*.model": TOKENIZER_NBYTES,
    "tekken.json": TOKENIZER_NBYTES,
    "*.tiktoken": TOKENIZER_NBYTES,
    "chat_template.json": TOKENIZER_NBYTES,
    "*.jinja": TOKENIZER_NBYTES,
}
_TEMPLATES: Final = "additional_chat_templates"  # a directory of them


def refuse_others(base: Path) -> None:
    """Raise ConverterError where a loader would read anything else than what is judged here, or more of it."""
    files = read_base_files(base)
    if not isinstance(files, HuggingfaceFiles):
        return
    for path, limit in _texts(base):
        with could_not_read(path):
            require_readable(path, limit)
    named = files.config.get("transformers_weights")
    if named not in _NAMED:
        raise ConverterError(
            f"{base / 'config.json'}: transformers_weights: found {named!r}, wanted none or {WEIGHTS_NAME}"
        )
    for other in (header.path for header in files.headers if header.path.suffix != ".safetensors"):
        raise ConverterError(f"{other}: is a shard of the base, wanted one that is called .safetensors")
    pickle = None if files.headers else next(pickles(base), None)
    if pickle:
        raise ConverterError(
            f"{pickle}: is a pickle, which can run code when it is loaded, and is not opened; wanted {WEIGHTS_NAME} "
            "(load the model where you trust it, and save it with save_pretrained)"
        )


def _texts(base: Path) -> Iterator[tuple[Path, int]]:
    with could_not_read(base):
        yield from ((path, limit) for name, limit in _TEXTS.items() for path in named(base, name))
    templates = base / _TEMPLATES
    with could_not_read(templates):
        yield from ((path, TOKENIZER_NBYTES) for path in named(inside(templates), "*.jinja"))
