"""The tokenizer of a Hugging Face base as llama.cpp can run it, or why it can't. No library runs.

Two kinds of llama.cpp's serve a tokenizer.json of type BPE: "gpt2" (bytes as characters, cut by one of its named
pre-tokenizers, then merges in order) and "llama" (SentencePiece's: spaces are U+2581, of all neighbours that make a
token the best-scored join, characters without a token become bytes).
Format: huggingface/tokenizers, tokenizers/src/models/bpe; llama.cpp: src/llama-vocab.cpp; the choices where both have
several, and the names of keys: llama.cpp's conversion/base.py (get_vocab_base, _create_vocab_sentencepiece).
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

from converter.read.pre_tokenizers import (
    SPACE,
    Json,
    UnknownTokenizer,
    adds_space,
    byte_level_name,
    is_byte_level,
    template_of,
)
from converter.read.tokenizer import Tokenizer, read_tokenizer
from converter.read.vocabulary import CONTROL, NORMAL, UNUSED, USER_DEFINED

UNKNOWN, BYTE = 2, 6  # llama_token_type in llama.cpp's include/llama.h
_ADDED_SCORE: Final = -1000.0
_NEVER_MERGED: Final = -1e6


@dataclass(frozen=True, slots=True)
class TokenizerModel:
    """What a GGUF says of a tokenizer. ``pre`` and ``merges`` belong to gpt2, ``scores`` and ``adds_space`` to llama."""

    model: Literal["gpt2", "llama"]
    pre: str
    texts: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...]
    adds_space: bool
    adds_bos: bool
    adds_eos: bool
    special_ids: Mapping[str, int]
    chat_template: str | None


def read_tokenizer_model(directory: Path, n_rows: int, config: Mapping[str, object]) -> TokenizerModel | None:
    """Read the tokenizer in ``directory``; None where it has no tokenizer.json. Raises UnknownTokenizer.

    The model has ``n_rows`` embeddings: tokens beyond them are left out, rows beyond the tokens are padding. Its
    ``config`` names the ids of bos, eos and pad where the tokenizer doesn't.
    """
    path = directory / "tokenizer.json"
    if not path.is_file():
        return None
    ids = tuple((name, i) for name in ("bos", "eos", "pad") if type(i := _first(config.get(f"{name}_token_id"))) is int)
    status = path.stat()
    return _read(directory, n_rows, ids, (status.st_mtime_ns, status.st_size))


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) and value else value


@lru_cache(maxsize=1)  # rules and plan both ask
def _read(directory: Path, n_rows: int, ids: tuple[tuple[str, int], ...], _state: tuple[int, int]) -> TokenizerModel:
    tokenizer = read_tokenizer(directory)
    if tokenizer is None or tokenizer.faults:
        raise UnknownTokenizer("; ".join(f"{path.name} {why}" for path, why in tokenizer.faults) if tokenizer else "")
    whole = json.loads((directory / "tokenizer.json").read_bytes())
    try:
        return _model(whole, _stated(directory), tokenizer, n_rows, dict(ids))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UnknownTokenizer(f"tokenizer.json is not as expected: {error!r}") from error


def _stated(directory: Path) -> Json:
    path = directory / "tokenizer_config.json"
    stated: Json = json.loads(path.read_bytes()) if path.is_file() else {}
    return stated


def _model(whole: Json, stated: Json, tokenizer: Tokenizer, n_rows: int, ids: Mapping[str, int]) -> TokenizerModel:
    bpe: Json = whole["model"]
    _refuse_others(bpe)
    pairs = [tuple(pair if isinstance(pair, list) else pair.split(" ", 1)) for pair in bpe["merges"]]
    before, behind = template_of(whole)
    special_ids = {name: i for name, i in {**ids, **tokenizer.special_ids}.items() if i < n_rows}
    if "eos" not in special_ids:  # llama.cpp would end at token 11 (llama_vocab::impl::load)
        raise UnknownTokenizer("names no eos token, and config.json none either")
    is_gpt2 = is_byte_level(whole)
    return TokenizerModel(
        model="gpt2" if is_gpt2 else "llama",
        pre=byte_level_name(whole) if is_gpt2 else "default",
        texts=_texts(tokenizer, n_rows),
        types=tuple(_types(tokenizer, bpe, n_rows)),
        merges=tuple(map(_merge, pairs)) if is_gpt2 else (),
        scores=() if is_gpt2 else tuple(_scores(tokenizer, pairs, n_rows)),
        adds_space=not is_gpt2 and adds_space(whole),
        adds_bos=_adds(stated.get("add_bos_token"), before, special_ids.get("bos")),
        adds_eos=_adds(stated.get("add_eos_token"), behind, special_ids.get("eos")),
        special_ids={**special_ids, **_unknown_id(bpe)},
        chat_template=tokenizer.chat_template,
    )


def _refuse_others(bpe: Json) -> None:
    if bpe.get("type", "BPE") != "BPE" or "merges" not in bpe:
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
    for i in range(n_rows):
        text = tokenizer.vocabulary.get(i)
        if text is not None and text == bpe.get("unk_token"):
            yield UNKNOWN
        elif i in added:
            yield added[i]
        elif text is None:
            yield UNUSED
        else:
            yield BYTE if bpe.get("byte_fallback") and _is_byte(text) else NORMAL


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _unknown_id(bpe: Json) -> Mapping[str, int]:
    i = bpe["vocab"].get(bpe.get("unk_token"))
    return {"unk": i} if type(i) is int else {}


def _merge(pair: tuple[str, ...]) -> str:
    """llama.cpp parts a merge at its first space; tokens of bytes spell theirs as another character."""
    left, right = (part.replace(" ", "Ġ") for part in pair)
    return f"{left} {right}"


def _scores(tokenizer: Tokenizer, pairs: list[tuple[str, ...]], n_rows: int) -> Iterator[float]:
    """SentencePiece joins what scores best, BPE what merges first: a token scores as its first merge's place.

    transformers makes merges of scores in the same way (SentencePieceExtractor in convert_slow_tokenizer.py).
    """
    places: dict[str, float] = {}
    for place, pair in enumerate(pairs):
        places.setdefault("".join(pair), float(-place))
    added = {token.id for token in tokenizer.added}
    for i in range(n_rows):
        text = tokenizer.vocabulary.get(i, "")
        yield _ADDED_SCORE if i in added else places.get(text, _NEVER_MERGED)
