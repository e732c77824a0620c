"""The tokenizer of a Hugging Face base as llama.cpp can run it, or why it can't. No library runs.

Two kinds of llama.cpp's serve a tokenizer.json of type BPE: "gpt2" (bytes as characters, cut by one of its named
pre-tokenizers, then merges in order) and "llama" (SentencePiece's: spaces are U+2581, of all neighbours that make a
token the best-scored join, characters without a token become bytes).
Format: huggingface/tokenizers, tokenizers/src/models/bpe; llama.cpp: src/llama-vocab.cpp; the choices where both have
several, and the names of keys: llama.cpp's conversion/base.py (get_vocab_base, _create_vocab_sentencepiece).
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

from converter.derive.pre_tokenizers import (
    SPACE,
    Json,
    UnknownTokenizer,
    adds_space,
    byte_level_name,
    is_byte_level,
    template_of,
)
from converter.derive.vocabulary import CONTROL, NORMAL, UNUSED, USER_DEFINED
from converter.read.limits import MERGE_VALUES
from converter.read.strict_json import parsed_json
from converter.read.tokenizer import BpeFiles, Tokenizer, read_bpe_files, read_tokenizer

UNKNOWN, BYTE = 2, 6  # llama_token_type in llama.cpp's include/llama.h
_ADDED_SCORE: Final = -1000.0
_NEVER_MERGED: Final = -1e6

# A merge is a pair, or its two parts with a space between (tokenizers before 0.20). Looked at without making the
# strings: a tenth of a second for the largest, and no memory.
_SPACES: Final = rb"[ \t\r\n]*+"
_STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
_PAIR: Final = _SPACES.join((rb"\[", _STRING, rb",", _STRING, rb"\]"))
_PARTS: Final = rb'"(?:[^" \\]++|\\.)*+ (?:[^"\\]++|\\.)*+"'
_ONE: Final = _SPACES + b"(?:" + _PAIR + b"|" + _PARTS + b")" + _SPACES
_NO_PAIR: Final = "has a merge that is no pair of tokens"
_MERGES: Final = re.compile(rb"\[(?:" + _ONE + b"(?:," + _ONE + b")*+|" + _SPACES + rb")\]")


@dataclass(frozen=True, slots=True)
class TokenizerStructure:
    """Everything but the tokens. ``pre`` belongs to gpt2, ``adds_space`` to llama."""

    model: Literal["gpt2", "llama"]
    pre: str
    adds_space: bool
    adds_bos: bool
    adds_eos: bool
    special_ids: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TokenizerModel:
    """What a GGUF says of a tokenizer. ``merges`` belong to gpt2, ``scores`` to llama."""

    structure: TokenizerStructure
    texts: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...]
    special_ids: Mapping[str, int]
    chat_template: str | None


def tokenizer_model(directory: Path, n_rows: int, config: Mapping[str, object]) -> TokenizerModel:
    """The tokenizer in ``directory``, which has a tokenizer.json. Raises UnknownTokenizer, Unreadable.

    The model has ``n_rows`` embeddings: tokens beyond them are left out, rows beyond the tokens are padding. Its
    ``config`` names the ids of bos, eos and pad where the tokenizer doesn't.
    """
    tokenizer = read_tokenizer(directory)
    if tokenizer is None or tokenizer.faults:
        raise UnknownTokenizer("; ".join(f"{path.name} {why}" for path, why in tokenizer.faults) if tokenizer else "")
    files = read_bpe_files(directory)
    structure, bpe, pairs = _structure(files, config), files.settings["model"], _pairs(files.merges)
    is_gpt2 = structure.model == "gpt2"
    unknown_text = bpe.get("unk_token")
    unknown = next((i for i, text in tokenizer.vocabulary.items() if text == unknown_text), None)
    return TokenizerModel(
        structure,
        texts=_texts(tokenizer, n_rows),
        types=tuple(_types(tokenizer, bpe, n_rows)),
        merges=tuple(map(_merge, pairs)) if is_gpt2 else (),
        scores=() if is_gpt2 else tuple(_scores(tokenizer, pairs, n_rows)),
        special_ids={**structure.special_ids, **({} if unknown is None else {"unk": unknown})},
        chat_template=tokenizer.chat_template,
    )


# --- Settings ---------------------------------------------------------------------------------------------------------


def tokenizer_structure(files: BpeFiles, config: Mapping[str, object]) -> TokenizerStructure:
    """All that llama.cpp must know of a tokenizer but its tokens. Raises UnknownTokenizer where it has none such."""
    if not _are_pairs(files.merges):
        raise UnknownTokenizer(_NO_PAIR)
    return _structure(files, config)


@lru_cache(maxsize=1)
def _are_pairs(merges: bytes) -> bool:
    return _MERGES.fullmatch(merges) is not None


def _structure(files: BpeFiles, config: Mapping[str, object]) -> TokenizerStructure:
    try:
        return _of_json(files.settings, files.config, _special_ids(files.settings, files.config, config))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UnknownTokenizer(f"is not as expected: {error!r}") from error


def _of_json(whole: Json, stated: Json, special_ids: Mapping[str, int]) -> TokenizerStructure:
    _refuse_others(whole["model"])
    if "eos" not in special_ids:  # llama.cpp would end at token 11 (llama_vocab::impl::load)
        raise UnknownTokenizer("names no eos token, and config.json none either")
    before, behind = template_of(whole)
    is_gpt2 = is_byte_level(whole)
    return TokenizerStructure(
        model="gpt2" if is_gpt2 else "llama",
        pre=byte_level_name(whole) if is_gpt2 else "default",
        adds_space=not is_gpt2 and adds_space(whole),
        adds_bos=_adds(stated.get("add_bos_token"), before, special_ids.get("bos")),
        adds_eos=_adds(stated.get("add_eos_token"), behind, special_ids.get("eos")),
        special_ids=special_ids,
    )


def _special_ids(whole: Json, stated: Json, config: Mapping[str, object]) -> Mapping[str, int]:
    """The ids of bos, eos and pad, each by its name in the tokenizer, or else by its number in the model's config."""
    added = {token["content"]: token["id"] for token in whole.get("added_tokens", ())}
    ids = {}
    for name in ("bos", "eos", "pad"):
        token = stated.get(f"{name}_token")
        text = token.get("content") if isinstance(token, dict) else token
        number = config.get(f"{name}_token_id")
        first = number[0] if isinstance(number, list) and number else number
        i = added.get(text, first)
        if type(i) is int:
            ids[name] = i
    return ids


def _refuse_others(bpe: Json) -> None:
    if bpe.get("type", "BPE") != "BPE":
        raise UnknownTokenizer(f"is of the type {bpe.get('type')}, wanted BPE")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if bpe.get(name):
            raise UnknownTokenizer(f"has {name} {bpe[name]!r}")


def _adds(stated: object, template: tuple[int, ...], token: int | None) -> bool:
    """tokenizer_config.json's word is the last one: transformers makes the template anew from it."""
    if isinstance(stated, bool):
        return stated and token is not None
    if template and template != (token,):
        raise UnknownTokenizer(f"puts the tokens {list(template)} round a text, wanted {token} or none")
    return bool(template)


# --- Tokens -----------------------------------------------------------------------------------------------------------


def _texts(tokenizer: Tokenizer, n_rows: int) -> tuple[str, ...]:
    texts = dict(tokenizer.vocabulary)
    for token in tokenizer.added:
        # llama.cpp looks for these in a text whose spaces are spaces.
        texts[token.id] = token.text if token.special else token.text.replace(SPACE, " ")
    every = tuple(texts.get(i, f"[PAD{i}]") for i in range(n_rows))
    if len(set(every)) < n_rows:  # llama.cpp ends the process (GGML_ASSERT in llama_vocab::impl::load)
        raise UnknownTokenizer(f"gives the token {Counter(every).most_common(1)[0][0]!r} two ids")
    return every


def _types(tokenizer: Tokenizer, bpe: Json, n_rows: int) -> Iterator[int]:
    added = {token.id: CONTROL if token.special else USER_DEFINED for token in tokenizer.added}
    unknown, has_bytes = bpe.get("unk_token"), bool(bpe.get("byte_fallback"))
    for i, text in enumerate(map(tokenizer.vocabulary.get, range(n_rows))):
        if text is not None and text == unknown:
            yield UNKNOWN
        elif i in added:
            yield added[i]
        elif text is None:
            yield UNUSED
        else:
            yield BYTE if has_bytes and _is_byte(text) else NORMAL


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _pairs(merges: bytes) -> list[list[str]]:
    return [_pair(merge) for merge in parsed_json(merges, MERGE_VALUES)]


def _pair(merge: object) -> list[str]:
    """Of a hundred thousand and more: a match statement takes ten times as long."""
    parts = merge.split(" ", 1) if isinstance(merge, str) else merge
    if isinstance(parts, list) and len(parts) == 2 and type(parts[0]) is type(parts[1]) is str:
        return parts
    raise UnknownTokenizer(_NO_PAIR)


def _merge(pair: list[str]) -> str:
    """llama.cpp parts a merge at its first space; tokens of bytes spell theirs as another character."""
    left, right = pair
    if " " in left or " " in right:
        left, right = left.replace(" ", "Ġ"), right.replace(" ", "Ġ")
    return f"{left} {right}"


def _scores(tokenizer: Tokenizer, pairs: list[list[str]], n_rows: int) -> Iterator[float]:
    """SentencePiece joins what scores best, BPE what merges first: a token scores as its merges' place.

    transformers makes merges of scores in the same way (SentencePieceExtractor in convert_slow_tokenizer.py).
    """
    added = {token.id for token in tokenizer.added}
    normal = {text for i, text in tokenizer.vocabulary.items() if i not in added}
    places = _places(pairs, normal)
    for i in range(n_rows):
        yield _ADDED_SCORE if i in added else places.get(tokenizer.vocabulary.get(i, ""), _NEVER_MERGED)


def require_scores(directory: Path, config: Mapping[str, object]) -> None:
    """Raise UnknownTokenizer or Unreadable where SentencePiece's scores can't say what the merges in ``directory`` do.

    That takes a look at every merge and every token: seconds, for a large one.
    """
    files, tokenizer = read_bpe_files(directory), read_tokenizer(directory)
    if tokenizer and not tokenizer.faults and tokenizer_structure(files, config).model == "llama":
        added = {token.id for token in tokenizer.added}
        _places(_pairs(files.merges), {text for i, text in tokenizer.vocabulary.items() if i not in added})


def _places(pairs: list[list[str]], normal: set[str]) -> Mapping[str, float]:
    """The place of each token in the order of merges. Raises UnknownTokenizer where scores couldn't say the same."""
    places: dict[str, float] = {}
    n_splits, before = 0, ""
    for place, (left, right) in enumerate(pairs):
        token = left + right
        if token in normal:
            n_splits += left in normal and right in normal
            if token in places and token != before:
                raise UnknownTokenizer(
                    f"makes the token {token!r} at several places of its merges, unlike SentencePiece"
                )
        before = token
        places.setdefault(token, float(-place))
    if n_splits != sum(_n_splits(token, normal) for token in normal if token in places):
        raise UnknownTokenizer("has not every merge that makes one of its tokens, unlike SentencePiece")
    return places


def _n_splits(token: str, normal: set[str]) -> int:
    return sum(token[:i] in normal and token[i:] in normal for i in range(1, len(token)))
