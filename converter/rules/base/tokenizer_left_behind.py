"""The tokenizer beside the adapter has another chat template, or another first or last token, than the base.

Why it matters: a LoRA GGUF carries neither, so llama.cpp serves the adapter with the base's. Prompts then differ from
those of training, and generation may not stop.

What to do: write a model of its own with `--to model`, where both follow the adapter's tokenizer; or give llama.cpp the
template with `--chat-template-file`.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.vocabulary import base_settings
from converter.diagnostics import LORA, BaseCheck, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each setting that the base has otherwise."""
    tokenizer, settings = adapter.tokenizer, base_settings(base)
    if tokenizer is None or settings is None:
        return
    if tokenizer.chat_template and tokenizer.chat_template != settings.chat_template:
        found = "differs from" if settings.chat_template else "is not in"
        yield Problem("chat_template", f"{found} {base.label}", LORA)
    for name in ("bos", "eos"):
        ours, theirs = tokenizer.special_ids.get(name), settings.special_ids.get(name)
        if ours is not None and ours != theirs:
            yield Problem(f"{name}_token", f"has the id {ours}, in {base.label} {theirs}", LORA)


RULE = Rule("BM025", "tokenizer-left-behind", Severity.WARNING, BaseCheck(check))
