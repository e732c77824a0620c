"""Which files of weights beside an adapter may be a part of it that PEFT doesn't load, told by their names.

Trainers write such files: LLaVA's and Qwen-VL's (non_lora_trainables.bin), LongLoRA's (trainable_params.bin),
fms-hf-tuning's (new_embeddings.safetensors). What belongs to a training run's state, or to a base in the same
directory, is none: transformers/trainer.py, accelerate/utils/constants.py, DeepSpeed's checkpoints.
"""

import re
from collections.abc import Iterable
from typing import Final

_OTHERS: Final = re.compile(
    r"(\d+_)?adapters\.\w+"  # MLX's, and its checkpoints
    r"|(pytorch_)?model([-_.]\d+-of-\d+)?\.\w+|consolidated[\w.-]*"  # a base's own
    # The state of a training run; a value head is reinforcement learning's, which no language model has.
    r"|(optimizer|scheduler|scaler|sampler|rng_state|random_states|training_args|dl_state_dict|value_head)[\w.-]*"
    r"|(mp|zero|bf16_zero|fp16_zero)_[\w-]*(rank|pp)[\w.-]*"
)


def sidecars(names: Iterable[str]) -> tuple[str, ...]:
    """Those of ``names`` that are not known to be no part of an adapter."""
    return tuple(name for name in names if not _OTHERS.fullmatch(name))
