"""The adapter acts only from its invocation tokens on (aLoRA, alora_invocation_tokens).

Why it matters: a merged model applies the delta to every token. As a LoRA file it is exact in llama-server, which
reads the tokens from the file and leaves what comes before them to the base.

What to do: serve it as a LoRA with `--to lora` on llama-server; other programs apply it to every token.
"""

from collections.abc import Iterator

from converter.diagnostics import MODEL, AdapterCheck, Problem, Rule, Severity
from converter.read.adapter import Adapter


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield the invocation tokens."""
    tokens = adapter.config.alora_invocation_tokens if adapter.config else ()
    if tokens:
        message = f"is {list(tokens)[:20]}: the adapter acts only after these tokens, a merged model always"
        yield Problem("alora_invocation_tokens", message, MODEL)


RULE = Rule("LO014", "invocation-tokens-in-model", Severity.ERROR, AdapterCheck(check))
