"""The adapter acts only from its invocation tokens on (aLoRA, alora_invocation_tokens).

Why it matters: a merged model applies it to every token, and llama-server, the one program that reads invocation tokens
from a LoRA file, from one token before them. Measured in llama-server (xllamacpp 2026.10.11549) against PEFT on prompts
of 24 tokens: 0.01 to 0.27 of the adapter's effect was wrong, and all of it where the last invocation token stood there
twice; with requests in parallel some answers were those of no adapter at all.

What to do: serve it with PEFT, or train it without alora_invocation_tokens.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield the invocation tokens."""
    tokens = adapter.config.alora_invocation_tokens if adapter.config else ()
    if tokens:
        message = f"is {list(tokens)[:20]}: the adapter acts from these tokens on, which llama.cpp does a token early"
        yield Problem("alora_invocation_tokens", message)


RULE = Rule("LO014", "invocation-tokens", Severity.ERROR, AdapterCheck(check), gguf=True)
