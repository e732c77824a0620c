"""What our GGUF of a directory tells llama.cpp's graph, against what its own converter makes of the same config."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from gguf import GGUFReader

from converter.planning.conversion_plan import NewArray, NewKeyValue, StoredNumbers
from converter.planning.metadata import graph_key_values
from converter.values.rows import number_of
from tools.measured_tables import Measured

_BESIDE: Final = ("GGUF.", "general.", "tokenizer.")  # of the file and of the vocabulary
# What llama.cpp's loader takes where a file says nothing (load_hparams in src/llama-model.cpp): a value, or a key's.
_DEFAULTS: Final[Mapping[str, Any]] = {
    "attention.head_count_kv": "attention.head_count",
    "expert_count": 0,
    "expert_gating_func": 2,  # where a file of MiniMax M2 says nothing (src/models/minimax-m2.cpp)
    "expert_group_count": 1,
    "expert_group_used_count": 1,
    "rope.dimension_count": "attention.key_length",
    "rope.freq_base": 10000.0,
    "rope.scaling.factor": 1.0,
    "rope.scaling.finetuned": True,  # of the graphs that read it
    "rope.scaling.type": "none",
    "rope.scaling.yarn_beta_fast": 32.0,
    "rope.scaling.yarn_beta_slow": 1.0,
    "ssm.dt_b_c_rms": False,
    "use_parallel_residual": False,
}
# What is told otherwise here, or not at all, and why.
_OTHERWISE: Final[Mapping[str, str]] = {
    "bloom.context_length": "the converter takes the width where seq_length is missing",
    "chatglm.attention.layer_norm_rms_epsilon": "the converter looks for layernorm_epsilon, which GLM 4 had",
    "chatglm.context_length": "the converter looks for seq_length",
    "ernie4_5-moe.expert_shared_feed_forward_length": "the converter divides intermediate_size by num_key_value_heads",
    "falcon.rope.freq_base": "the converter says none, as Falcon 2 has it",
    "gpt2.feed_forward_length": "the converter takes 4 times the width, whatever n_inner says",
    "gptneox.rope.freq_base": "the converter says none",
    "granite.attention.head_count_kv": "a list of one number",
    "granite.expert_shared_feed_forward_length": "there are no experts",
    "granite.expert_used_count": "there are no experts",
    "granite.ssm.group_count": "there are no Mamba layers",
    "granite.ssm.inner_size": "there are no Mamba layers",
    "granite.ssm.state_size": "there are no Mamba layers",
    "granite.ssm.time_step_rank": "there are no Mamba layers",
    "granitehybrid.context_length": "the converter says 2 ** 20, since nothing rotates",
    "hunyuan-dense.context_length": "the converter says 256k of every model with an alpha",
    "hunyuan-dense.rope.scaling.original_context_length": "nothing is scaled",
    "hunyuan-moe.expert_feed_forward_length": "the converter takes moe_intermediate_size, which transformers doesn't",
    "nemotron.attention.layer_norm_rms_epsilon": "the graph has other norms",
    "nemotron_h.context_length": "the converter says 2 ** 20, since nothing rotates",
    "nemotron_h.rope.dimension_count": "nothing rotates",
    "nemotron_h_moe.context_length": "the converter says 2 ** 20, since nothing rotates",
    "nemotron_h_moe.rope.dimension_count": "nothing rotates",
    "phi2.feed_forward_length": "the converter takes 4 times the width, whatever the config says",
    "phi3.attention.sliding_window": "0 is no window",
    "phi3.rope.scaling.original_context_length": "nothing is scaled",
    "qwen35.full_attention_interval": "layers are listed",
    "qwen35moe.full_attention_interval": "layers are listed",
    "qwen3next.full_attention_interval": "layers are listed",
}


def metadata_differences(measured: Measured) -> Iterator[str]:
    """The keys of the graph whose values differ, said or taken for granted."""
    architecture = measured.base.architecture
    name = architecture.name if architecture else ""
    ours = {entry.key: _value(entry) for entry in graph_key_values(measured.base)}
    fields = GGUFReader(measured.model.gguf).fields
    theirs = {key: field.contents() for key, field in fields.items() if not key.startswith(_BESIDE)}
    for key in sorted((ours.keys() | theirs.keys()) - _OTHERWISE.keys()):
        found, wanted = (_taken(of, name, key) for of in (ours, theirs))
        if not _is_same(found, wanted):
            yield f"{key} is {found}, not {wanted}"


def _value(entry: NewKeyValue | NewArray | StoredNumbers) -> object:
    match entry:
        case NewKeyValue():
            return entry.value
        case NewArray():
            return entry.values
        case StoredNumbers():
            return tuple(map(number_of, entry.tensors))


def _taken(stated: Mapping[str, Any], name: str, key: str) -> Any:
    """The value of a key, or what llama.cpp takes where there is none."""
    if key in stated:
        return stated[key]
    of_graph = key.removeprefix(f"{name}.")
    if of_graph in {"attention.key_length", "attention.value_length"}:
        n_heads = stated[f"{name}.attention.head_count"]
        return stated[f"{name}.embedding_length"] // n_heads if n_heads else 0
    default = _DEFAULTS.get(of_graph)
    return _taken(stated, name, f"{name}.{default}") if default in _KEYS else default


_KEYS: Final = ("attention.head_count", "attention.key_length")


def _is_same(found: Any, wanted: Any) -> bool:
    if found is None or wanted is None or isinstance(found, str):
        return bool(found == wanted)
    a, b = np.asarray(found, np.float32), np.asarray(wanted, np.float32)
    return a.shape == b.shape and bool((a == b).all())
