"""Plans the untied base: the base GGUF with a copy of token_embd.weight added as output.weight.

llama.cpp then gives head and embedding a LoRA each; logits without one are bit-identical to the tied base's. One untied
base serves any number of adapters.
"""

from converter.plan.conversion_plan import PlannedFile
from converter.plan.copied import copied_key_values, copied_tensor
from converter.read.base_model import BaseModel

UNTIED_BASE_NAME = "untied-base.gguf"
LORA_NAME = "lora.gguf"


def plan_untied_base(base: BaseModel) -> PlannedFile:
    """Plan the untied copy of a tied GGUF base."""
    tensors = []
    for shard in base.shards:
        for tensor in shard.tensors:
            tensors.append(copied_tensor(tensor.name, tensor, shard.path))
            if base.tied and tensor.name == "token_embd.weight":
                tensors.append(copied_tensor("output.weight", tensor, shard.path))
    return PlannedFile(
        tuple(tensors), copied_key_values(base), alignment=base.shards[0].alignment, name=UNTIED_BASE_NAME
    )
