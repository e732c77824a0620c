"""The tokenizer beside an adapter or a base as data: its tokens, special ids and chat template. No library runs.

Formats: tokenizer.json is huggingface/tokenizers' (tokenizers/src/tokenizer/serialization.rs); the other files are
transformers' (tokenization_utils_base.py: added_tokens.json and special_tokens_map.json are of slow tokenizers).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from converter.errors import ConverterError
from converter.read.files import Unreadable, exists, inside, read_whole, status_of
from converter.read.limits import TOKENIZER_NBYTES, TOKENS
from converter.read.strict_json import json_object

TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
_SPECIAL: Final = ("bos", "eos", "pad")

# The merges of a BPE model, which tokenizers writes last, behind its vocabulary: the two are nearly all of a
# tokenizer.json. A quote within a token has a backslash before it, so that none of these is found in one.
_VOCABULARY: Final = re.compile(rb'"vocab"\s*:\s*\{')
_MERGES: Final = re.compile(rb'"merges"\s*:\s*\[')
_END: Final = re.compile(rb"\]\s*\}\s*\}\s*\Z")
_END_NBYTES: Final = 64

Json = Mapping[str, object]


class AddedToken(NamedTuple):
    """A token beside the model's own vocabulary, which is split off before any other."""

    id: int
    text: str
    special: bool


@dataclass(frozen=True, slots=True, eq=False)  # by identity: a key of caches
class Tokenizer:
    """What the files of a tokenizer say.

    ``vocabulary`` has the texts of the model's own tokens by id; it is empty where only the added ones are known.
    ``special_ids`` has bos, eos and pad as far as they are stated. ``faults`` are files that can't be read, and why.
    """

    vocabulary: Mapping[int, str]
    added: tuple[AddedToken, ...]
    special_ids: Mapping[str, int]
    chat_template: str | None
    faults: tuple[tuple[Path, str], ...]

    @property
    def n_tokens(self) -> int:
        """The highest id plus one, 0 where no token is known."""
        return max((*self.vocabulary, *(token.id for token in self.added)), default=-1) + 1


def read_tokenizer(directory: Path) -> Tokenizer | None:
    """Read the tokenizer in ``directory``; None where none of its files is there.

    Raises ConverterError where the system doesn't let us read one.
    """
    return _read(directory, _stamps(directory, TOKENIZER_FILES))


# Several rules ask, and a large one takes half a second. A file that has changed is read again.
_Stamp = tuple[str, int, int]


def _stamps(directory: Path, names: Iterable[str]) -> tuple[_Stamp, ...]:
    """Of those that are there the name, and when and how large it was written."""
    found = [(name, status_of(directory / name)) for name in names if exists(directory / name)]
    return tuple((name, status.st_mtime_ns, status.st_size) for name, status in found)


@lru_cache(maxsize=2)
def _read(directory: Path, files: tuple[_Stamp, ...]) -> Tokenizer | None:
    if not files:
        return None
    faults: list[tuple[Path, str]] = []
    contents = {name: _content(directory / name, faults) for name, _, _ in files}
    objects = {
        name: _object(directory / name, content, faults) for name, content in contents.items() if content is not None
    }
    whole, config = objects.get("tokenizer.json", {}), objects.get("tokenizer_config.json", {})
    vocabulary = dict(_vocabulary(_mapping(whole.get("model")).get("vocab")))
    added = tuple(_added(whole, config, objects.get("added_tokens.json", {})))
    stated = {**objects.get("special_tokens_map.json", {}), **config}
    template = _chat_template(contents.get("chat_template.jinja"), config.get("chat_template"))
    if max((*vocabulary, *(token.id for token in added)), default=0) >= TOKENS:
        faults.append((directory / files[0][0], f"gives a token an id beyond {TOKENS - 1}"))
        vocabulary, added = {}, ()
    return Tokenizer(vocabulary, added, _special_ids(stated, vocabulary, added), template, tuple(faults))


def _content(path: Path, faults: list[tuple[Path, str]]) -> bytes | None:
    try:
        return _whole(path)
    except Unreadable as error:
        faults.append((path, str(error)))
    return None


def _whole(path: Path) -> bytes:
    try:
        return read_whole(inside(path), TOKENIZER_NBYTES)
    except OSError as error:
        raise ConverterError(f"{path}: can't be read: {error.strerror or error}") from error


def _object(path: Path, content: bytes, faults: list[tuple[Path, str]]) -> Json:
    if path.suffix != ".json":
        return {}
    try:
        return json_object(_without_merges(content))
    except Unreadable as error:
        faults.append((path, str(error)))
        return {}


def _without_merges(data: bytes) -> bytes:
    """Nobody asks for the merges here, and parsed they are most of the memory."""
    begin, end = _MERGES.search(data), _END.search(data, len(data) - _END_NBYTES)
    return data[: begin.end()] + data[end.start() :] if begin and end else data


def _mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _vocabulary(vocab: object) -> Iterator[tuple[int, str]]:
    """BPE's and WordPiece's are objects of text to id, Unigram's a list of [text, score]."""
    if isinstance(vocab, dict):
        yield from ((i, text) for text, i in vocab.items() if type(i) is int and i >= 0)
    elif isinstance(vocab, list):
        yield from ((i, str(entry[0])) for i, entry in enumerate(vocab) if isinstance(entry, list) and entry)


def _added(whole: Json, config: Json, added: Json) -> Iterator[AddedToken]:
    """The added tokens, from the first place that has them."""
    entries = whole.get("added_tokens")
    decoder = _mapping(config.get("added_tokens_decoder"))
    if isinstance(entries, list):
        pairs = [(_mapping(entry).get("id"), _mapping(entry)) for entry in entries]
    elif decoder:
        pairs = [(int(i) if i.isdecimal() and len(i) < 10 else None, _mapping(entry)) for i, entry in decoder.items()]
    else:
        pairs = [(i, {"content": text}) for text, i in added.items()]
    for i, fields in pairs:
        text = fields.get("content")
        if type(i) is int and i >= 0 and isinstance(text, str):
            yield AddedToken(i, text, special=fields.get("special") is True)


def _special_ids(stated: Json, vocabulary: Mapping[int, str], added: tuple[AddedToken, ...]) -> Mapping[str, int]:
    wanted = {name: _token_text(stated.get(f"{name}_token")) for name in _SPECIAL}
    texts = set(wanted.values()) - {None}
    ids = {text: i for i, text in vocabulary.items() if text in texts} | {token.text: token.id for token in added}
    return {name: ids[text] for name, text in wanted.items() if text in ids}


def _token_text(token: object) -> str | None:
    """A special token is stated as its text, or as the fields of an added token."""
    text = _mapping(token).get("content", token)
    return text if isinstance(text, str) else None


def _chat_template(file: bytes | None, stated: object) -> str | None:
    """The file's, or the one that is stated; or of a list of named ones the default, which is the one served."""
    if file is not None:
        return file.decode(errors="replace")
    named = stated if isinstance(stated, list) else []
    templates = (_mapping(entry).get("template") for entry in named if _mapping(entry).get("name") == "default")
    template = next(templates, stated)
    return template if isinstance(template, str) else None


def chat_templates(directory: Path) -> Iterator[tuple[str, str]]:
    """Every chat template beside an adapter, with the name of its file. What can't be read is another rule's."""
    with suppress(Unreadable):
        if exists(directory / "chat_template.jinja"):
            yield "chat_template.jinja", _whole(directory / "chat_template.jinja").decode(errors="replace")
    with suppress(Unreadable):
        stated = _config(directory / "tokenizer_config.json").get("chat_template")
        for entry in stated if isinstance(stated, list) else [stated]:
            template = _mapping(entry).get("template", entry)
            if isinstance(template, str):
                yield "tokenizer_config.json", template


# --- The settings alone -----------------------------------------------------------------------------------------------


class BpeFiles(NamedTuple):
    """tokenizer.json of a BPE model without its tokens, its merges as JSON, and tokenizer_config.json."""

    settings: Mapping[str, Any]
    merges: bytes
    config: Mapping[str, Any]


def read_bpe_files(directory: Path) -> BpeFiles:
    """Read the tokenizer in ``directory`` without parsing its tokens. Raises Unreadable."""
    return _read_bpe(directory, _stamps(directory, ("tokenizer.json", "tokenizer_config.json")))


@lru_cache(maxsize=1)
def _read_bpe(directory: Path, _stamped: tuple[_Stamp, ...]) -> BpeFiles:
    data = _whole(directory / "tokenizer.json")
    vocabulary, merges = _VOCABULARY.search(data), _MERGES.search(data)
    end = _END.search(data, len(data) - _END_NBYTES)
    if not vocabulary or not merges or not end or merges.start() < vocabulary.end():
        raise Unreadable("is no BPE model with its vocabulary and its merges at the end, as tokenizers writes it")
    settings = json_object(data[: vocabulary.end()] + b"}," + merges[0] + data[end.start() :])
    return BpeFiles(
        settings, b"[" + data[merges.end() : end.start()] + b"]", _config(directory / "tokenizer_config.json")
    )


def _config(path: Path) -> dict[str, Any]:
    try:
        return json_object(_whole(path)) if exists(path) else {}
    except Unreadable as error:
        raise Unreadable(f"{path.name} {error}") from error
