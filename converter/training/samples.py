"""Samples to learn from, of three forms: a text, a prompt with its completion, a chat.

The columns are those of trl (https://huggingface.co/docs/trl/dataset_formats), and ``conversations`` of ``from`` and
``value``, as ShareGPT's exports have them.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from converter.errors import ConverterError

Row = Mapping[str, Any]

_FORMS: Final[dict[str, frozenset[str]]] = {
    "messages": frozenset({"messages"}),
    "conversations": frozenset({"conversations"}),
    "prompt and completion": frozenset({"prompt", "completion"}),
    "text": frozenset({"text"}),
}
_ROLES: Final = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "tool": "tool",
}


@dataclass(frozen=True, slots=True)
class Text:
    """``where`` names the sample in the data, for whoever is to mend it."""

    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Completion:
    where: str
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Chat:
    """``completion`` is the range of messages that answer the others before them."""

    where: str
    messages: tuple[dict[str, Any], ...]
    completion: range
    tools: tuple[Any, ...] = ()


Sample = Text | Completion | Chat


def form_of(columns: Collection[str], rows: Sequence[Row], data: str) -> str:
    """Which form all rows are of, by the columns there are."""
    forms = [form for form, wanted in _FORMS.items() if wanted <= set(columns)]
    if not forms:
        raise ConverterError(
            f"{data}: found {_listed(columns)} in its samples; wanted messages, or prompt and completion, or text: "
            "rename or convert them"
        )
    if len(forms) > 1:
        firsts = ", ".join(f"{form} in sample {_first(form, rows)}" for form in forms)
        raise ConverterError(f"{data}: found samples of several forms ({firsts}); wanted one form: keep one of them")
    return forms[0]


def _first(form: str, rows: Sequence[Row]) -> int:
    has = (all(row.get(column) is not None for column in _FORMS[form]) for row in rows)
    return next((number for number, found in enumerate(has, 1) if found), 1)


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def sample_of(form: str, row: Row, where: str) -> Sample:
    """The sample that a row of this form states. Raises ConverterError."""
    try:
        return _sample_of(form, row, where)
    except RecursionError as error:
        raise ConverterError(f"{where}: is nested too deeply to be read") from error


def _sample_of(form: str, row: Row, where: str) -> Sample:
    if form == "text":
        return Text(where, _filled(row.get("text"), f"{where}: text"))
    tools = _tools(row.get("tools"), where)
    if form != "prompt and completion":
        messages = _messages(row.get(form), f"{where}: {form}")
        last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=None)
        if last is None:
            raise ConverterError(f"{where}: {form} has {_roles(messages)}; wanted an assistant's turn to learn from")
        return Chat(where, messages, range(last, last + 1), tools)
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, str) and isinstance(completion, str):
        return Completion(where, prompt, _filled(completion, f"{where}: completion"))
    return _answered(_messages(prompt, f"{where}: prompt"), _messages(completion, f"{where}: completion"), where, tools)


def check_alike(samples: Sequence[Sample]) -> None:
    """Prompts are texts in all samples, or messages in all: a chat gets its special tokens from its template."""
    other = next((sample for sample in samples if type(sample) is not type(samples[0])), None)
    if other:
        chats = "messages" if isinstance(other, Chat) else "texts"
        raise ConverterError(f"{other.where}: prompt and completion are {chats}, unlike in the samples before it")


def _answered(
    prompt: tuple[dict[str, Any], ...], completion: tuple[dict[str, Any], ...], where: str, tools: tuple[Any, ...]
) -> Chat:
    if completion[0]["role"] != "assistant":
        raise ConverterError(f"{where}: completion begins with the role {completion[0]['role']}; wanted assistant")
    return Chat(where, prompt + completion, range(len(prompt), len(prompt) + len(completion)), tools)


def _messages(entries: Any, where: str) -> tuple[dict[str, Any], ...]:
    if not isinstance(entries, list):
        raise ConverterError(f"{where} is {_shown(entries)}; wanted a list of messages")
    if not entries:
        raise ConverterError(f"{where} has no messages")
    return tuple(_message(entry, f"{where}[{i}]") for i, entry in enumerate(entries))


def _message(entry: Any, where: str) -> dict[str, Any]:
    """A message as chat templates read it; what else it has (tool_calls, name) goes with it."""
    if not isinstance(entry, dict):
        raise ConverterError(f"{where} is {_shown(entry)}; wanted an object with role and content")
    message = _without_nulls(entry)
    if "from" in message:
        sender = message.pop("from")
        if sender not in _ROLES:
            raise ConverterError(f"{where}: from is {_shown(sender)}; wanted one of {', '.join(_ROLES)}")
        message = {"role": _ROLES[sender], "content": message.pop("value", None), **message}
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        raise ConverterError(f"{where} has no role; found {_listed(message)}")
    # A call of a tool says nothing; and many sets state an empty system prompt.
    if not (role == "system" and content == "") and "tool_calls" not in message:
        _filled(content, f"{where}: content")
    return {"content": "", **message}


def _tools(stated: Any, where: str) -> tuple[Any, ...]:
    try:
        tools = json.loads(stated) if isinstance(stated, str) else stated
    except ValueError as error:
        raise ConverterError(f"{where}: tools is no JSON ({error})") from error
    if not isinstance(tools, list | None):
        raise ConverterError(f"{where}: tools is {_shown(tools)}; wanted a list")
    return tuple(_without_nulls(tools or []))


def _without_nulls(value: Any) -> Any:
    """Arrow gives every object the fields of all others, as nulls."""
    match value:
        case dict():
            return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
        case list():
            return [_without_nulls(entry) for entry in value]
        case _:
            return value


def _filled(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ConverterError(f"{where} is {_shown(value)}; wanted a text")
    if not value.strip():
        raise ConverterError(f"{where} is empty; wanted a text")
    return value


def _roles(messages: Sequence[Row]) -> str:
    return f"the roles {', '.join(str(message['role']) for message in messages)}"


def _shown(value: Any) -> str:
    shown = "missing" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
