"""The metadata of a Hugging Face base's tokenizer. Keys: gguf-py/gguf/constants.py of llama.cpp."""

from collections.abc import Iterator

from converter.derive.base_model import BaseModel
from converter.derive.pre_tokenizers import UnknownTokenizer
from converter.derive.tokenizer_model import TokenizerModel, tokenizer_model
from converter.derive.vocabulary import SPECIAL_KEYS, TEMPLATE_KEY, TOKENS_KEY, TYPES_KEY
from converter.errors import ConverterError
from converter.planning.conversion_plan import NewArray, NewKeyValue
from converter.read.files import Unreadable
from converter.read.gguf_header import FLOAT32, INT32, STRING

_IDS = {**SPECIAL_KEYS, "unk": "tokenizer.ggml.unknown_token_id"}


def tokenizer_key_values(base: BaseModel) -> Iterator[NewKeyValue | NewArray]:
    """The entries of the base's tokenizer. Raises ConverterError where llama.cpp can't have it."""
    try:
        tokenizer = tokenizer_model(base.path, base.dims["vocab"], base.config)
    except (UnknownTokenizer, Unreadable) as unknown:
        raise ConverterError(f"{base.path / 'tokenizer.json'}: {unknown}") from unknown
    structure = tokenizer.structure
    yield NewKeyValue("tokenizer.ggml.model", structure.model)
    yield NewKeyValue("tokenizer.ggml.pre", structure.pre)
    yield from _arrays(tokenizer)
    for name, i in tokenizer.special_ids.items():
        yield NewKeyValue(_IDS[name], i)
    yield NewKeyValue("tokenizer.ggml.add_bos_token", structure.adds_bos)
    yield NewKeyValue("tokenizer.ggml.add_eos_token", structure.adds_eos)
    yield NewKeyValue("tokenizer.ggml.add_space_prefix", structure.adds_space)
    if tokenizer.chat_template:
        yield NewKeyValue(TEMPLATE_KEY, tokenizer.chat_template)


def _arrays(tokenizer: TokenizerModel) -> Iterator[NewArray]:
    yield NewArray(TOKENS_KEY, STRING, tokenizer.texts)
    if tokenizer.scores:
        yield NewArray("tokenizer.ggml.scores", FLOAT32, tokenizer.scores)
    yield NewArray(TYPES_KEY, INT32, tokenizer.types)
    if tokenizer.merges:
        yield NewArray("tokenizer.ggml.merges", STRING, tokenizer.merges)
