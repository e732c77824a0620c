"""The adapter changes fused experts, and was saved by a PEFT that took their weights for transposed.

Why it matters: up to 0.19.0 PEFT gave lora_A the out side of experts and lora_B the in side, and exchanged them in
0.19.1. Read as today, the delta is another one: off by 1.48 times its norm where both sides are of one size
(hidden_size = 2 * moe_intermediate_size), and of a shape that fits no weight elsewhere. Today's PEFT does that too,
without a word. Experts that transformers keeps transposed (gpt-oss, Llama 4) may lie either way by their transformers
too: beside the base, the shapes of the factors tell, unless both sides are of one size.

What to do: merge the adapter with the PEFT that saved it (`pip install peft==VERSION`, merge_and_unload), and serve the
merged model. Where peft_version is missing, write into adapter_config.json what saved the adapter: "0.19.1" stands for
today's layout.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.adapter_tensors import is_expert_parameter
from converter.derive.base_model import BaseModel
from converter.diagnostics import EitherCheck, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel | None) -> Iterator[Problem]:
    """Yield the version if the layout of fused experts isn't today's, or can't be told."""
    if adapter.config is None or not any(map(is_expert_parameter, adapter.modules)):
        return
    experts = [pair for pair in adapter.pairs if is_expert_parameter(pair.module)]
    if not experts:
        return
    from converter.derive.expert_layout import is_kept_turned, is_turned

    found = is_turned(adapter, base)
    stated = adapter.config.raw.get("peft_version")
    if found is None:
        yield Problem(
            "peft_version",
            f"is {stated!r}, which doesn't tell how the factors of {len(experts)} parameters of experts lie",
        )
    elif found and not (base and is_kept_turned(adapter, base)):
        yield Problem("peft_version", f"is {stated}, whose lora_A has the out side of {experts[0].module}")


RULE = Rule("LO024", "experts-turned-round", Severity.ERROR, EitherCheck(check))
