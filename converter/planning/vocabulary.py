"""The metadata of a vocabulary that follows the adapter's tokenizer: tokens, scores, types, special ids, chat template.

The keys are gguf's (gguf-py/gguf/constants.py); what the values are is llama.cpp's converter's choice
(_create_vocab_sentencepiece in conversion/base.py).
"""

from collections.abc import Iterator, Mapping
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.vocabulary import (
    SPECIAL_KEYS,
    TEMPLATE_KEY,
    TOKENS_KEY,
    TYPES_KEY,
    UNUSED,
    TokenChange,
    Vocabulary,
    base_settings,
    vocabulary_of,
)
from converter.diagnostics import Deployment
from converter.planning.conversion_plan import CopiedKeyValue, EditedArray, NewArray, NewKeyValue, PlannedKeyValue
from converter.read.gguf_header import GgufArray
from converter.read.tokenizer import Tokenizer

_SCORES_KEY: Final = "tokenizer.ggml.scores"
_ADDED_SCORE: Final = -1000.0


def with_vocabulary(
    key_values: tuple[PlannedKeyValue, ...], adapter: Adapter, base: BaseModel
) -> tuple[PlannedKeyValue, ...]:
    """The base's metadata with the vocabulary of a judged adapter."""
    tokenizer, vocabulary = adapter.tokenizer, vocabulary_of(adapter, base)
    if vocabulary is None:
        return key_values
    entries = {entry.key: entry for entry in key_values}
    entries |= _sizes(entries, vocabulary, base)
    entries |= _arrays(entries, vocabulary)
    entries |= _settings(tokenizer, vocabulary, base) if tokenizer else {}
    return tuple(entries.values())


def vocabulary_notes(adapter: Adapter, base: BaseModel, deployment: Deployment) -> Iterator[str]:
    """What became of the rows and tokens that the base doesn't have."""
    vocabulary = vocabulary_of(adapter, base)
    if vocabulary is None:
        return
    if vocabulary.n_trained is not None and vocabulary.n_trained > vocabulary.n_rows:
        n = vocabulary.n_trained - vocabulary.n_rows
        yield f"{n} rows beyond the GGUF's vocabulary of {vocabulary.n_rows} tokens are padding and stay behind"
    if deployment.to == "model" and vocabulary.new_tokens:
        tokens = ", ".join(f"{token.text!r} ({token.id})" for token in vocabulary.new_tokens)
        yield f"new tokens: {tokens}"
    if deployment.to == "model" and vocabulary.n_rows != vocabulary.n_base:
        yield f"the vocabulary has {vocabulary.n_rows} rows, the base's {vocabulary.n_base}"


def _sizes(entries: Mapping[str, PlannedKeyValue], vocabulary: Vocabulary, base: BaseModel) -> dict[str, NewKeyValue]:
    name = base.architecture.name if base.architecture else base.model_type
    key = f"{name}.vocab_size"
    changed = key in entries and vocabulary.n_rows != vocabulary.n_base
    return {key: NewKeyValue(key, vocabulary.n_rows)} if changed else {}


def _arrays(entries: Mapping[str, PlannedKeyValue], vocabulary: Vocabulary) -> dict[str, PlannedKeyValue]:
    if not vocabulary.changes and vocabulary.n_rows == vocabulary.n_base:
        return {}
    edited: dict[str, PlannedKeyValue] = {}
    for key, values in _values(vocabulary).items():
        match entries.get(key):
            case CopiedKeyValue(path, entry) if isinstance(entry.value, GgufArray):
                edited[key] = EditedArray(path, key, entry.value, vocabulary.n_rows, values)
            case NewArray(_, element_type, elements):
                # What lies behind the base's elements is in the changes.
                changed = dict(enumerate(elements[: vocabulary.n_rows])) | dict(values)
                edited[key] = NewArray(key, element_type, tuple(changed[i] for i in range(vocabulary.n_rows)))
            case _:
                continue
    return edited


def _values(vocabulary: Vocabulary) -> dict[str, tuple[tuple[int, str | int | float], ...]]:
    changes = tuple(sorted((*vocabulary.changes, *_padding(vocabulary)), key=lambda change: change.id))
    return {
        TOKENS_KEY: tuple((c.id, c.text) for c in changes if c.text != c.before),
        TYPES_KEY: tuple((c.id, c.type) for c in changes),
        _SCORES_KEY: tuple((c.id, _ADDED_SCORE) for c in changes),
    }


def _padding(vocabulary: Vocabulary) -> Iterator[TokenChange]:
    tokens = {change.id for change in vocabulary.changes}
    for i in range(vocabulary.n_base, vocabulary.n_rows):
        if i not in tokens:
            yield TokenChange(i, f"[PAD{i}]", UNUSED, None)


def _settings(tokenizer: Tokenizer, vocabulary: Vocabulary, base: BaseModel) -> dict[str, NewKeyValue]:
    settings = base_settings(base)
    if settings is None:
        return {}
    wanted = {
        SPECIAL_KEYS[name]: i
        for name, i in tokenizer.special_ids.items()
        if i < vocabulary.n_rows and i != settings.special_ids.get(name)
    }
    changed = {key: NewKeyValue(key, i) for key, i in wanted.items()}
    if tokenizer.chat_template and tokenizer.chat_template != settings.chat_template:
        changed[TEMPLATE_KEY] = NewKeyValue(TEMPLATE_KEY, tokenizer.chat_template)
    return changed
