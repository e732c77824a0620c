"""Two tokens of the served model would be one to llama.cpp, or it would cut a token off.

Why it matters: llama.cpp reads a token's text up to its first NUL, and ends with a failed assertion where two ids have
one text. Spaces count as the served model spells them, and rows without a token are tokens too: [PAD32001] and so on.

What to do: give the new tokens texts of their own, none of the base's, none that looks like padding, none with a NUL in
it; save the tokenizer again beside the adapter.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.vocabulary import Vocabulary, base_tokens, vocabulary_of
from converter.diagnostics import MODEL, WHOLE_BASE, BaseCheck, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each token that is cut off, and each that has another's text. What a GGUF has already is as it is.

    Nothing where the base's tokens aren't known: all rows are padding then, each with a text of its own.
    """
    vocabulary = vocabulary_of(adapter, base)
    if vocabulary is None or vocabulary.unclear or not base_tokens(base).texts:
        return
    changed = {change.id: change.text for change in vocabulary.changes if change.text != change.before}
    if not changed and not base.is_convertible_checkpoint:
        return
    texts = _served(base, vocabulary, changed)
    ours, blocks = (range(len(texts)), WHOLE_BASE) if base.is_convertible_checkpoint else (changed, MODEL)
    yield from (Problem("tokenizer", message, blocks) for message in _faults(ours, texts))


def _faults(ours: Iterable[int], texts: Sequence[str]) -> Iterator[str]:
    """What is wrong with the texts of the ids that we write, beside all of the served model."""
    if _are_apart(texts):
        return
    ids: dict[str, list[int]] = {}
    for i, text in enumerate(texts):
        ids.setdefault(_as_read(i, text), []).append(i)
    for i in ours:
        text, same = texts[i], ids[_as_read(i, texts[i])]
        if "\0" in text:
            yield f"gives the id {i} the text {text!r}, which a GGUF can't hold whole"
        elif len(same) > 1:
            yield f"gives the text {text!r} to the ids {' and '.join(map(str, same[:3]))}"


def _are_apart(texts: Sequence[str]) -> bool:
    """Whether nothing can be wrong; of a quarter of a million tokens this is told in a tenth of the time."""
    return len(set(texts)) == len(texts) and all(texts) and not any("\0" in text for text in texts)


def _as_read(i: int, text: str) -> str:
    """A token's text in llama.cpp (llama_vocab::impl::load in src/llama-vocab.cpp)."""
    return text.partition("\0")[0] or f"[EMPTY_{i}]"


def _served(base: BaseModel, vocabulary: Vocabulary, changed: Mapping[int, str]) -> list[str]:
    """The text of each row; added ones of a Hugging Face tokenizer with spaces as llama.cpp looks for them."""
    texts = list(base_tokens(base).texts[: vocabulary.n_rows])
    tokenizer = base.tokenizer
    for token in tokenizer.added if tokenizer else ():
        if token.id < len(texts) and not token.special:
            texts[token.id] = token.text.replace("▁", " ")
    texts += (f"[PAD{i}]" for i in range(len(texts), vocabulary.n_rows))
    for i, text in changed.items():
        texts[i] = text
    return texts


RULE = Rule("BM027", "tokens-not-apart", Severity.ERROR, BaseCheck(check), gguf=True)
