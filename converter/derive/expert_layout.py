"""How an adapter's factors of fused experts lie, which depends on the model and on the PEFT that saved them.

A parameter of experts is (experts, out, in) in most of transformers. Up to 0.19.0 PEFT took it for (experts, in, out):
lora_A has the out side and lora_B the in side, and the delta is the transpose of what the same factors give since
0.19.1 (``ParamWrapper`` in peft/tuners/lora/layer.py, 0.17.0 to 0.21.2). gpt-oss' are (experts, in, out), which
transformers 5 tells PEFT: its factors lie alike in all of them. Llama 4's are so too, which nobody tells PEFT: today's
gives lora_A the out side of them.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Final

from converter.derive.adapter import Adapter, LoraPair
from converter.derive.adapter_tensors import is_expert_parameter
from converter.derive.base_model import BaseModel
from converter.read.adapter_config import AdapterConfig

_VERSION: Final = r"(\d+)\.(\d+)\.(\d+)(.*)"
_TURNED_IN: Final = (0, 19, 1)


def is_turned(adapter: Adapter, base: BaseModel | None) -> bool | None:
    """Whether lora_A has the out side of experts, and lora_B the in side; None where nothing tells.

    Both parameters of one module tell by their shapes: (2 * ffn, hidden) and (hidden, ffn), or the other way round. So
    does one beside a base that keeps experts as (in, out), where only its shape tells: which transformers PEFT had
    counts as much as which PEFT.
    """
    experts = [pair for pair in adapter.pairs if is_expert_parameter(pair.module)]
    by_module = {pair.module: pair for pair in experts}
    told = next(chain.from_iterable(_told_by_both(pair, by_module) for pair in experts), None)
    if told is not None or adapter.config is None:
        return told
    if base and is_kept_turned(adapter, base):
        return next(chain.from_iterable(_told_by_base(pair, base) for pair in experts), None)
    is_of_today = _is_of_today(adapter.config)
    return None if is_of_today is None else not is_of_today


def is_kept_turned(adapter: Adapter, base: BaseModel) -> bool:
    """Whether the base keeps the experts that an adapter changes as (in, out)."""
    places = (base.place(pair.module) for pair in adapter.pairs if is_expert_parameter(pair.module))
    return any(place and place.transposed for place in places)


def pairs_over(adapter: Adapter, base: BaseModel) -> tuple[LoraPair, ...]:
    """The adapter's pairs, those of experts as they lie on this base."""
    if not is_kept_turned(adapter, base) or not is_turned(adapter, base):
        return adapter.pairs
    return tuple(pair._replace(is_turned=is_expert_parameter(pair.module)) for pair in adapter.pairs)


def _told_by_both(gate_up: LoraPair, by_module: Mapping[str, LoraPair]) -> Iterator[bool]:
    experts, dot, name = gate_up.module.rpartition(".")
    down = by_module.get(f"{experts}{dot}down_proj")
    if name != "gate_up_proj" or down is None or not (gate_up.shape and down.shape):
        return
    (gate_up_out, gate_up_in), (down_out, down_in) = gate_up.shape[-2:], down.shape[-2:]
    if (gate_up_out, gate_up_in) == (2 * down_in, down_out):
        yield False
    elif (gate_up_in, gate_up_out) == (2 * down_out, down_in):
        yield True


def _told_by_base(pair: LoraPair, base: BaseModel) -> Iterator[bool]:
    wanted, found = (base.shape(pair.module) or ())[-2:], pair.shape[-2:]
    if wanted and found and wanted != wanted[::-1]:
        yield found == wanted[::-1]


def _is_of_today(config: AdapterConfig) -> bool | None:
    """Whether the PEFT that saved the adapter is 0.19.1 or later; None where its version isn't stated.

    PEFT states it since 0.18. Development versions of 0.19.1 are of either side.
    """
    stated = config.raw.get("peft_version")
    version = re.match(_VERSION, stated) if isinstance(stated, str) else None
    if version is None:
        return None
    release = (int(version[1]), int(version[2]), int(version[3]))
    if release == _TURNED_IN and version[4].startswith((".dev", "rc")):
        return None
    return release >= _TURNED_IN
