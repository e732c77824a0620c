"""Plans the untied base: the base with a copy of its embedding added as output.weight.

llama.cpp then gives head and embedding a LoRA each; logits without one are bit-identical to the tied base's. One untied
base serves any number of adapters.
"""

from converter.derive.base_model import BaseModel
from converter.planning.base_tensors import base_tensors
from converter.planning.conversion_plan import PlannedFile
from converter.planning.metadata import alignment_of, base_key_values

UNTIED_BASE_NAME = "untied-base.gguf"
LORA_NAME = "lora.gguf"


def plan_untied_base(base: BaseModel) -> PlannedFile:
    """Plan the untied copy of a tied base."""
    planned = []
    for tensor in base_tensors(base):
        planned.append(tensor.planned(tensor.name))
        if base.tied and tensor.name == "token_embd.weight":
            planned.append(tensor.planned("output.weight"))
    tensors = tuple(planned)
    return PlannedFile(
        "untied-base", tensors, base_key_values(base, tensors), alignment=alignment_of(base), name=UNTIED_BASE_NAME
    )
