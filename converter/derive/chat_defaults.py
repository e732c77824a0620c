"""What a served model does where nobody asks otherwise: the system prompt of its chat template, and how it samples.

A template is a program of whoever made the base, and is never run: a default system prompt is found where the template
is ChatML in one of two forms, which are compared as text.

- SmolLM2, Qwen 1.5 and 2: a prompt before the first message, where that is no system prompt.
- Qwen 2.5: the other half of a condition on the first message.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from converter.derive.base_model import BaseModel
from converter.read.files import could_not_read, exists, inside, read_whole
from converter.read.limits import CONFIG_NBYTES
from converter.read.strict_json import json_object

GENERATION_CONFIG_NAME: Final = "generation_config.json"
_TEXT: Final = r"""(?P<text>[^'"{}<>|\\]{1,4000}?)"""
_NEWLINE: Final = r"(?:\n|\\n)"
_PROMPT: Final = rf"\{{\{{-?\s*'<\|im_start\|>system{_NEWLINE}{_TEXT}<\|im_end\|>{_NEWLINE}'\s*-?\}}\}}"
_ROLE: Final = r"messages\[0\](?:\['role'\]|\.role)"
_CONTENT: Final = r"messages\[0\](?:\['content'\]|\.content)"
_GIVEN: Final = (
    rf"\{{\{{-?\s*'<\|im_start\|>system{_NEWLINE}'\s*\+\s*{_CONTENT}\s*\+\s*'<\|im_end\|>{_NEWLINE}'\s*-?\}}\}}"
)
_FORMS: Final = (
    re.compile(rf"\{{%-?\s*if loop\.first and {_ROLE} != 'system'\s*-?%\}}\s*{_PROMPT}\s*\{{%-?\s*endif"),
    re.compile(
        rf"\{{%-?\s*if {_ROLE} == 'system'\s*-?%\}}\s*{_GIVEN}\s*\{{%-?\s*else\s*-?%\}}\s*{_PROMPT}\s*\{{%-?\s*endif"
    ),
)
# Hugging Face's field, and GGUF's key (gguf-py/gguf/constants.py).
_SAMPLING: Final = (
    ("temperature", "general.sampling.temp"),
    ("top_k", "general.sampling.top_k"),
    ("top_p", "general.sampling.top_p"),
    ("min_p", "general.sampling.min_p"),
    ("repetition_penalty", "general.sampling.penalty_repeat"),
)


def default_system(template: str) -> str | None:
    """The system prompt that a chat template puts where a chat has none; None where it has none, or can't be told."""
    found = next(filter(None, (form.search(template) for form in _FORMS)), None)
    return found["text"] if found and found["text"].isprintable() else None


def sampling(base: BaseModel) -> Mapping[str, float]:
    """How a base says that it is to be sampled, by transformers' names of the settings.

    Raises ConverterError where its generation_config.json can't be read.
    """
    return dict(_of_gguf(base) if base.format == "gguf" else _of_directory(base.path))


def _of_gguf(base: BaseModel) -> Iterator[tuple[str, float]]:
    for name, key in _SAMPLING:
        yield from _number(name, base.shards[0].kv.get(key))


def _of_directory(directory: Path) -> Iterator[tuple[str, float]]:
    path = directory / GENERATION_CONFIG_NAME
    if not exists(path):
        return
    with could_not_read(path):
        config = json_object(read_whole(inside(path), CONFIG_NBYTES))
    if config.get("do_sample") is True:  # else transformers doesn't read the others
        for name, _ in _SAMPLING:
            yield from _number(name, config.get(name))


def _number(name: str, value: object) -> Iterator[tuple[str, float]]:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e6:
        yield name, value
