"""Two tokens of the served model would be one to llama.cpp, or it would cut a token off.

Why it matters: llama.cpp reads a token's text up to its first NUL, and ends with a failed assertion where two ids have
one text. Spaces count as the served model spells them, and rows without a token are tokens too: [PAD32001] and so on.

What to do: give the new tokens texts of their own, none of the base's, none that looks like padding, none with a NUL
or half a surrogate pair in it; save the tokenizer again beside the adapter.
"""

from collections.abc import Iterator, Mapping

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.vocabulary import Vocabulary, base_tokens, vocabulary_of
from converter.diagnostics import MODEL, WHOLE_BASE, BaseCheck, Problem, Rule, Severity
from converter.read.tokenizer import read_tokenizer


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each token that is cut off, and each that has another's text. What a GGUF has already is as it is."""
    vocabulary = vocabulary_of(adapter, base)
    if vocabulary is None or vocabulary.unclear:
        return
    changed = {change.id: change.text for change in vocabulary.changes if change.text != change.before}
    own = _own_texts(base, vocabulary.n_rows) if changed or base.is_convertible_checkpoint else {}
    ours = own | changed if base.is_convertible_checkpoint else changed
    blocks = WHOLE_BASE if base.is_convertible_checkpoint else MODEL
    yield from (Problem("tokenizer", message, blocks) for message in _faults(ours, _padded(own, vocabulary) | ours))


def _faults(ours: Mapping[int, str], every: Mapping[int, str]) -> Iterator[str]:
    """What is wrong with the texts that we write, beside every text of the served model."""
    ids = {_as_read(i, text): i for i, text in every.items()} if ours else {}
    for i, text in ours.items():
        other = ids[_as_read(i, text)]
        if "\0" in text or not _is_text(text):
            yield f"gives the id {i} the text {text!r}, which a GGUF can't hold whole"
        elif other != i:
            yield f"gives the text {text!r} to the ids {i} and {other}"


def _as_read(i: int, text: str) -> str:
    """A token's text in llama.cpp (llama_vocab::impl::load in src/llama-vocab.cpp)."""
    return text.partition("\0")[0] or f"[EMPTY_{i}]"


def _own_texts(base: BaseModel, n_rows: int) -> dict[int, str]:
    """The base's texts; added ones of a Hugging Face tokenizer with spaces as llama.cpp looks for them."""
    texts = dict(enumerate(base_tokens(base).texts[:n_rows]))
    tokenizer = read_tokenizer(base.path) if base.format == "huggingface" else None
    for token in tokenizer.added if tokenizer and texts else ():
        if token.id < n_rows and not token.special:
            texts[token.id] = token.text.replace("▁", " ")
    return texts


def _padded(texts: Mapping[int, str], vocabulary: Vocabulary) -> dict[int, str]:
    return {i: f"[PAD{i}]" for i in range(len(texts), vocabulary.n_rows)} | dict(texts)


def _is_text(text: str) -> bool:
    try:
        text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


RULE = Rule("BM027", "tokens-not-apart", Severity.ERROR, BaseCheck(check))
