"""The base's weights are multiplied by numbers of its config in GGUF, and it doesn't state them, or two for tied ends.

Why it matters: llama.cpp's converter multiplies Falcon-H1's weights by the multipliers of config.json, and its GGUF
says nothing of them. A delta has to be multiplied by the same ones: added as it is, it would be off by a factor of up
to 100. Embedding and head have multipliers of their own, which one tied tensor can't both have: llama.cpp's converter
takes the embedding's, and every logit is off.

What to do: give the base's Hugging Face directory as --base; for a LoRA file its config.json is enough, and the file
serves with the GGUF that llama.cpp's converter made. Of a tied base with two multipliers no GGUF is right.
"""

from collections.abc import Iterator
from math import inf

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDING, HEAD
from converter.diagnostics import EVERY, BaseCheck, Problem, Rule, Severity


def check(_adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the base where it is a GGUF, else each multiplier that is no number above 0, or not the other end's."""
    places = [place for of in base.architecture.modules.values() for place in of] if base.architecture else []
    fields = [field for place in places for section in place.factors for field in section[1:]]
    if fields and base.format == "gguf":
        message = "is a GGUF, which doesn't say what its weights were multiplied by: give the Hugging Face directory"
        yield Problem(base.label, message, EVERY)
        return
    for field in dict.fromkeys(fields):
        if not 0 < base.multiplier(field) < inf:
            yield Problem(field, f"is {base.multiplier(field)!r}, wanted a number above 0", EVERY)
    embedding, head = ([place.factors for place in base.places(module)] for module in (EMBEDDING, HEAD))
    if base.tied and embedding != head and _numbers(base, EMBEDDING) != _numbers(base, HEAD):
        yield Problem(HEAD, "is tied to the embedding, and their multipliers differ", EVERY)


def _numbers(base: BaseModel, module: str) -> list[tuple[float, ...]]:
    return [section.factors for place in base.places(module) for section in base.factors(place)]


RULE = Rule("BM049", "multiplier-unknown", Severity.ERROR, BaseCheck(check), gguf=True)
