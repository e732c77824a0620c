"""How a tokenizer.json cuts a text before its merges, and which of llama.cpp's ways is the same.

Nothing is guessed: a structure that isn't known is UnknownTokenizer. Which structures are known is data, in
pre_tokenizers.toml. Format: huggingface/tokenizers, tokenizers/src/{normalizers,pre_tokenizers,processors}.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

SPACE: Final = "▁"  # SentencePiece's, U+2581

Json = Mapping[str, Any]


class UnknownTokenizer(Exception):
    """llama.cpp has no such tokenizer; the message says why."""


def steps_of(component: Json | None, inner: str) -> tuple[Json, ...]:
    """The parts of a normalizer, pre-tokenizer or post-processor: of a Sequence its ``inner`` ones, else itself."""
    if component is None:
        return ()
    if component.get("type") != "Sequence":
        return (component,)
    return tuple(step for part in component[inner] for step in steps_of(part, inner))


# --- Byte-level BPE ---------------------------------------------------------------------------------------------------


def is_byte_level(tokenizer: Json) -> bool:
    """Whether tokens are of bytes, each written as a character of its own (GPT-2's)."""
    return any(step.get("type") == "ByteLevel" for step in steps_of(tokenizer.get("pre_tokenizer"), "pretokenizers"))


def byte_level_name(tokenizer: Json) -> str:
    """The tokenizer.ggml.pre of a byte-level BPE. Raises UnknownTokenizer."""
    # llama.cpp doesn't normalise, which makes no difference to a text that is in NFC already.
    for step in steps_of(tokenizer.get("normalizer"), "normalizers"):
        if step.get("type") != "NFC":
            raise UnknownTokenizer(f"normalises by {step.get('type')}")
    stated = steps_of(tokenizer["pre_tokenizer"], "pretokenizers")
    steps = [_bare(step, is_of_one=sum(step.get("type") == "Split" for step in stated) == 1) for step in stated]
    ignores_merges = bool(tokenizer["model"].get("ignore_merges"))
    for name, known in _known().items():
        if known["steps"] == steps and "differs" in known:
            raise UnknownTokenizer(
                f"cuts a text as {name} does; llama.cpp's {name} cuts {known['differs']!r} otherwise"
            )
        if known["steps"] == steps and known.get("ignore_merges", False) == ignores_merges:
            return name
    merges = " and ignores merges" if ignores_merges else ""
    raise UnknownTokenizer(f"cuts a text by {steps}{merges}, which none of llama.cpp's named pre-tokenizers does")


@cache
def _known() -> Json:
    return tomllib.loads(Path(__file__).with_name("pre_tokenizers.toml").read_text(encoding="utf-8"))


def _bare(step: Json, *, is_of_one: bool) -> dict[str, object]:
    """What of a step decides where a text is cut; of one that alone has a regex, or of several."""
    # A regex of the table that is alone matches every character: what it matches and what is isolated are the same.
    isolates = {("Isolated", False), ("Removed", True)} if is_of_one else {("Isolated", False)}
    match step.get("type"):
        case "ByteLevel" if not step.get("add_prefix_space"):
            return {"type": "ByteLevel", "use_regex": step.get("use_regex", True)}
        case "Digits":
            return {"type": "Digits", "individual_digits": step.get("individual_digits")}
        case "Split" if (step.get("behavior"), step.get("invert")) in isolates:
            return {"type": "Split", "regex": step.get("pattern", {}).get("Regex")}
        case _:
            return dict(step)


# --- SentencePiece's BPE ----------------------------------------------------------------------------------------------


def adds_space(tokenizer: Json) -> bool:
    """Whether a BPE of SentencePiece's kind puts a space before a text. Raises UnknownTokenizer."""
    normalizers = steps_of(tokenizer.get("normalizer"), "normalizers")
    cuts = steps_of(tokenizer.get("pre_tokenizer"), "pretokenizers")
    for step in (*normalizers, *cuts):
        if not _is_of_spaces(step):
            raise UnknownTokenizer(f"has the step {dict(step)}, which llama.cpp's SentencePiece tokenizer has not")
    prepends = any(step["type"] == "Prepend" for step in normalizers)
    return prepends or any(step.get("prepend_scheme", "never") != "never" for step in cuts)


def _is_of_spaces(step: Json) -> bool:
    match step.get("type"):
        case "Replace":
            return bool(step.get("pattern") == {"String": " "} and step.get("content") == SPACE)
        case "Prepend":
            return bool(step.get("prepend") == SPACE)
        case "Metaspace":
            return bool(step.get("replacement") == SPACE and step.get("split") is False)
        case "Split":  # at spaces, of which the normalizer left none (Gemma 3)
            return bool(step.get("pattern") == {"String": " "})
        case _:
            return False


# --- What is put round a text -----------------------------------------------------------------------------------------


def template_of(tokenizer: Json) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that are put before a text, and behind it. Raises UnknownTokenizer."""
    before: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()
    for step in steps_of(tokenizer.get("post_processor"), "processors"):
        if step.get("type") == "TemplateProcessing":
            before, behind = _template(step)
        elif step.get("type") != "ByteLevel":
            raise UnknownTokenizer(f"ends with the step {step.get('type')!r}")
    return before, behind


def _template(step: Json) -> tuple[tuple[int, ...], tuple[int, ...]]:
    pieces: Sequence[Json] = step["single"]
    text = next((i for i, piece in enumerate(pieces) if "Sequence" in piece), len(pieces))
    table: Json = step.get("special_tokens", {})
    return tuple(_ids(pieces[:text], table)), tuple(_ids(pieces[text + 1 :], table))


def _ids(pieces: Sequence[Json], table: Json) -> Iterator[int]:
    for piece in pieces:
        yield from table[piece["SpecialToken"]["id"]]["ids"]
