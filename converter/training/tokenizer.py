"""The tokenizer of a base, with the chat template that the run is to use."""

from pathlib import Path
from typing import Final

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from converter.derive.base_model import BaseModel
from converter.errors import ConverterError
from converter.read.files import read_text
from converter.read.limits import TEXT_NBYTES
from converter.transformers_base import cause, quiet

_FILES: Final = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
_NO_VOCABULARY: Final = (None, "no_vocab", "none")


def load_tokenizer(base: BaseModel, chat_template: Path | None) -> PreTrainedTokenizerBase:
    """The tokenizer in the base's directory or GGUF. Raises ConverterError where there is none, or no such template."""
    # Without files transformers may make up an empty tokenizer of the model's type.
    if not _has_tokenizer(base):
        raise ConverterError(
            f"{base.path}: has no tokenizer, wanted {' or '.join(_FILES[:2])}; save the model's tokenizer there"
        )
    where = {"gguf_file": base.path.name} if base.format == "gguf" else {}
    directory = base.path.parent if base.format == "gguf" else base.path
    with quiet():
        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                directory, local_files_only=True, trust_remote_code=False, **where
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
            raise ConverterError(f"{base.path}: transformers can't load its tokenizer: {cause(error)[:200]}") from error
    if chat_template:
        tokenizer.chat_template = read_text(chat_template, TEXT_NBYTES)
    return tokenizer


def _has_tokenizer(base: BaseModel) -> bool:
    if base.format == "gguf":
        return base.shards[0].kv.get("tokenizer.ggml.model") not in _NO_VOCABULARY
    return any((base.path / name).is_file() for name in _FILES)
