"""The adapter changes the vision or audio part of a multimodal model too.

Why it matters: llama.cpp serves that part from a file of its own (mmproj), and loads no LoRA on it.
convert_lora_to_gguf.py drops its tensors in silence: the text model is then served with a vision tower that it was not
trained beside.

What to do: train the language model alone (exclude_modules, or a target_modules regex that names it); or merge with
PEFT (merge_and_unload) and convert the merged model and its mmproj with convert_hf_to_gguf.py.
"""

import re
from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity

# How transformers' multimodal models call what is beside the text model, as a whole part of a module's path.
_TOWER: Final = re.compile(
    r"(^|\.)((vision|visual|image|audio|speech)(_\w+)?|(embed|multi_modal|multimodal|mm|modality)_"
    r"(vision|audio|projector|projection|adaptor)|connector|vpm|apm|resampler|perceiver|img_\w+)\."
)


def is_of_tower(module: str) -> bool:
    """Whether a module belongs to the vision or audio part."""
    return _tower(module) is not None


def _tower(module: str) -> str | None:
    """The part's name, which stands before the number of a layer: what stands behind is a module of the text model."""
    match = _TOWER.search(f"{re.split(r'[.][0-9]', module)[0]}.")
    return match[2] if match else None


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield the parts of the model that are not its text model, each with how many modules it has here."""
    counts: dict[str, int] = {}
    for module in adapter.modules:
        tower = _tower(module)
        if tower:
            counts[tower] = counts.get(tower, 0) + 1
    for tower, count in counts.items():
        yield Problem(tower, f"has tensors for {count} modules, which no GGUF of the text model holds")


RULE = Rule("LO020", "vision-tower-changed", Severity.ERROR, AdapterCheck(check))
