"""How an adapter's tokens and rows stand to its base's: the same, trimmed, grown, or not to be told.

The rows of head and embedding say how many the trained model had; the tokenizer beside the adapter says which of them
are tokens. Rows beyond the tokens are padding (resize_token_embeddings with pad_to_multiple_of, Gemma 3's checkpoints).
What llama.cpp makes of tokens: load in its src/llama-vocab.cpp; what its converter writes: conversion/base.py.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from converter.derive.adapter import Adapter
from converter.derive.adapter_tensors import AdapterTensor
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDING, HEAD
from converter.read.tokenizer import AddedToken, Tokenizer

TOKENS_KEY: Final = "tokenizer.ggml.tokens"
TYPES_KEY: Final = "tokenizer.ggml.token_type"
TEMPLATE_KEY: Final = "tokenizer.chat_template"
SPECIAL_KEYS: Final[Mapping[str, str]] = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
}

# llama_token_type in llama.cpp's include/llama.h.
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5

# Tokens that models keep in stock: Gemma's <unused0>, Llama 3's <|reserved_special_token_0|>, Mistral's <SPECIAL_20>,
# Phi 3's <|placeholder1|>, Phi 4's <|dummy_0|>, BERT's [unused0], llama.cpp's [PAD151700].
_RESERVED: Final = r"(?i)[<\[]\|?(unused|reserved|special|placeholder|dummy|extra|pad)\w*\d\|?[>\]]"


@dataclass(frozen=True, slots=True, eq=False)  # by identity: a key of caches
class BaseTokens:
    """The base's token texts and types by id; empty where it states none. A GGUF has one for each row."""

    texts: tuple[str, ...] = ()
    types: tuple[int, ...] = ()


class TokenChange(NamedTuple):
    """A token to which the adapter's tokenizer gives a text or a type that the base doesn't; ``before`` is its text."""

    id: int
    text: str
    type: int
    before: str | None

    @property
    def is_new(self) -> bool:
        """Whether it is a token of the user's own: behind the base's, or in the place of a reserved one."""
        return self.before is None or (self.before != self.text and re.fullmatch(_RESERVED, self.before) is not None)


class Vocabulary(NamedTuple):
    """What the served model has: ``n_rows`` rows, and ``changes`` to the base's tokens.

    ``n_trained`` is how many rows the adapter's tensors have: those beyond ``n_rows`` are padding. ``unclear`` says why
    the served rows can't be told. ``differing`` are the ids, of ``n_shared`` compared, whose texts are another's.
    ``rowless`` are tokens that neither base nor adapter has a row for.
    """

    n_base: int
    n_rows: int
    n_trained: int | None = None
    unclear: str | None = None
    changes: tuple[TokenChange, ...] = ()
    differing: tuple[int, ...] = ()
    n_shared: int = 0
    rowless: tuple[str, ...] = ()

    @property
    def new_tokens(self) -> tuple[TokenChange, ...]:
        """The changes that are tokens of the user's own."""
        return tuple(change for change in self.changes if change.is_new)


def vocabulary_of(adapter: Adapter, base: BaseModel) -> Vocabulary | None:
    """Compare an adapter's vocabulary with its base's; None where the base's number of rows is not known."""
    n_base = base.dims.get("vocab")
    if n_base is None:
        return None
    tokenizer = adapter.tokenizer
    n_tokens = tokenizer.n_tokens if tokenizer else 0
    return _compared(n_base, _n_trained(adapter, n_base, n_tokens), tokenizer, base_tokens(base))


def has_only_base_rows(adapter: Adapter) -> bool:
    """Whether all that the adapter has of head and embedding is known to be the base's own."""
    parts = (*adapter.saved_modules, *adapter.base_layers, *(pair.a for pair in adapter.pairs))
    ends = [
        part for part in (*parts, *(rows.tensor for rows in adapter.token_rows)) if part.module in (EMBEDDING, HEAD)
    ]
    return all(part.key in adapter.unchanged for part in ends)


def is_padding_alone(adapter: Adapter, vocabulary: Vocabulary) -> bool:
    """Whether all that is new is the token that pads batches: it ends no answer, and no chat template names it."""
    tokenizer = adapter.tokenizer
    if tokenizer is None or len(vocabulary.new_tokens) != 1 or vocabulary.n_rows > vocabulary.n_base:
        return False
    (token,) = vocabulary.new_tokens
    uses = [name for name, i in tokenizer.special_ids.items() if i == token.id]
    return uses == ["pad"] and token.text not in (tokenizer.chat_template or "")


def _n_trained(adapter: Adapter, n_base: int, n_tokens: int) -> int | None:
    """How many rows the trained model's head or embedding had, as far as the adapter's tensors tell."""
    whole = (t.tensor.shape for t in (*adapter.saved_modules, *adapter.base_layers) if _is_end(t))
    deltas = (pair.shape for pair in adapter.pairs if pair.module in (EMBEDDING, HEAD) and pair.is_well_shaped)
    n_rows = [shape[0] for shape in (*whole, *deltas) if len(shape) == 2]
    if n_rows:
        return max(n_rows)
    highest = max((index for rows in adapter.token_rows for index in rows.indices), default=-1)
    return max(highest + 1, n_tokens) if highest >= n_base else None


def _is_end(tensor: AdapterTensor) -> bool:
    return tensor.module in (EMBEDDING, HEAD) and tensor.role.endswith("weight")


@lru_cache(maxsize=2)
def _compared(n_base: int, n_trained: int | None, tokenizer: Tokenizer | None, tokens: BaseTokens) -> Vocabulary:
    n_rows, unclear = _served_rows(n_base, n_trained, tokenizer.n_tokens if tokenizer else 0, tokens)
    vocabulary = Vocabulary(n_base, n_rows, n_trained, unclear)
    if tokenizer is None or unclear:
        return vocabulary
    rowless = tuple(token.text for token in tokenizer.added if token.id >= n_rows and n_trained is None)
    changes = tuple(_changes(tokenizer.added, tokens, n_rows)) if tokens.texts else ()
    differing, n_shared = _differing(tokenizer, changes, tokens, n_rows)
    return vocabulary._replace(changes=changes, differing=differing, n_shared=n_shared, rowless=rowless)


def _served_rows(n_base: int, n_trained: int | None, n_tokens: int, tokens: BaseTokens) -> tuple[int, str | None]:
    """The rows of the served model, and why they can't be told."""
    if n_trained is None or n_trained == n_base:
        return n_base, None
    if n_tokens:
        if n_tokens <= n_base < n_trained:
            return n_base, None
        broken = n_trained < min(n_tokens, n_base)
        return n_trained, f"has {n_tokens} tokens, but the adapter has {n_trained} rows" if broken else None
    # A base with more padding than the trained model had.
    if n_trained < n_base == len(tokens.types) and set(tokens.types[n_trained:]) == {UNUSED}:
        return n_trained, None
    return (
        n_base,
        f"is not beside the adapter, which has {n_trained} rows, the base {n_base}: they may be tokens or padding",
    )


def _changes(added: tuple[AddedToken, ...], tokens: BaseTokens, n_rows: int) -> Iterator[TokenChange]:
    for token in added:
        if token.id >= n_rows:
            continue
        before = tokens.texts[token.id] if token.id < len(tokens.texts) else None
        kind = tokens.types[token.id] if token.id < len(tokens.types) else None
        # llama.cpp's converter writes the spaces of such tokens as spaces.
        text = token.text if token.special else token.text.replace("▁", " ")
        if before is None or not _is_same(text, before):
            yield TokenChange(token.id, text, CONTROL if token.special else USER_DEFINED, before)
        elif kind in (NORMAL, UNUSED):
            yield TokenChange(token.id, before, CONTROL if token.special else USER_DEFINED, before)


def _is_same(text: str, other: str) -> bool:
    return text == other or text.replace("▁", " ") == other.replace("▁", " ")


def _differing(
    tokenizer: Tokenizer, changes: tuple[TokenChange, ...], tokens: BaseTokens, n_rows: int
) -> tuple[tuple[int, ...], int]:
    """The ids whose texts are another's, beyond tokens of the user's own; and of how many."""
    if not tokens.texts:
        return (), 0
    added = {token.id for token in tokenizer.added}
    own = {i: text for i, text in tokenizer.vocabulary.items() if i not in added and i < n_rows}
    n = len(tokens.texts)
    differing = [i for i, text in own.items() if i >= n or not _is_same(text, tokens.texts[i])]
    renamed = [change.id for change in changes if not change.is_new and change.before != change.text]
    return tuple(sorted((*differing, *renamed))), len(own) + len(added)


# --- The base's tokens ------------------------------------------------------------------------------------------------


def base_tokens(base: BaseModel) -> BaseTokens:
    """The tokens of a base: of a GGUF its own, of a Hugging Face directory those of its tokenizer."""
    if base.format == "huggingface":
        return _huggingface_tokens(base.tokenizer)
    header = base.shards[0]
    kv = header.kv
    return _gguf_tokens(header.path, header.nbytes, kv.get(TOKENS_KEY), kv.get(TYPES_KEY))


@lru_cache(maxsize=2)
def _huggingface_tokens(tokenizer: Tokenizer | None) -> BaseTokens:
    # Of the added tokens alone the others can't be told.
    if tokenizer is None or not tokenizer.vocabulary:
        return BaseTokens()
    texts = {**tokenizer.vocabulary, **{token.id: token.text for token in tokenizer.added}}
    return BaseTokens(tuple(texts.get(i, f"[PAD{i}]") for i in range(tokenizer.n_tokens)))


@lru_cache(maxsize=2)
def _gguf_tokens(path: Path, _nbytes: int, texts: object, types: object) -> BaseTokens:
    from converter.read.gguf_header import INT32, STRING, GgufArray, read_scalars, read_strings

    if not isinstance(texts, GgufArray) or texts.element_type != STRING:
        return BaseTokens()
    kinds = read_scalars(path, types) if isinstance(types, GgufArray) and types.element_type == INT32 else ()
    return BaseTokens(tuple(read_strings(path, texts)), tuple(map(int, kinds)))


class BaseSettings(NamedTuple):
    """What a base says beside its tokens: the ids of bos, eos and pad, and the chat template."""

    special_ids: Mapping[str, int]
    chat_template: str | None


def base_settings(base: BaseModel) -> BaseSettings | None:
    """The settings of a base's tokenizer, None where it has no tokenizer."""
    if base.format == "huggingface":
        tokenizer = base.tokenizer
        return BaseSettings(tokenizer.special_ids, tokenizer.chat_template) if tokenizer else None
    kv = base.shards[0].kv
    if TOKENS_KEY not in kv:
        return None
    ids = {name: value for name, key in SPECIAL_KEYS.items() if isinstance(value := kv.get(key), int)}
    template = kv.get(TEMPLATE_KEY)
    return BaseSettings(ids, template if isinstance(template, str) else None)
