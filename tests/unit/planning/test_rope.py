"""What a GGUF says of the rotary embedding, for every type of every architecture.

llama.cpp's formulas on its keys give the frequencies of transformers.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from transformers import AutoConfig, HunYuanDenseV1Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.hunyuan_v1_dense.modeling_hunyuan_v1_dense import HunYuanDenseV1RotaryEmbedding

from converter.architectures import MODEL_TYPES, NAMES, Architecture, architecture_named
from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.planning.rope import rope_factors, rope_key_values
from converter.rules.base import rope_not_read
from tests.rules.specimens import HEAD_DIM, HIDDEN, N_HEAD, write_huggingface

NO_ADAPTER = Adapter(Path(), None, (), (), ())
N_CONTEXT, N_ORIGINAL, THETA = 512, 64, 5e5
# Numbers that are nobody's default. A type that an architecture's table names and that isn't here fails.
FIELDS: Mapping[str, list[dict[str, Any]]] = {
    "default": [{}],
    "linear": [{"factor": 3.0}],
    "yarn": [
        {"factor": 8.0, "original_max_position_embeddings": N_ORIGINAL},
        {"factor": 8.0, "original_max_position_embeddings": N_ORIGINAL, "attention_factor": 1.3},
    ],
    "llama3": [
        {
            "factor": 6.0,
            "low_freq_factor": 1.5,
            "high_freq_factor": 3.0,
            "original_max_position_embeddings": N_ORIGINAL,
        }
    ],
    "dynamic": [{"alpha": 50.0, "factor": 1.0}],
    "longrope": [
        {
            "long_factor": [1.5 + i for i in range(HEAD_DIM // 2)],
            "short_factor": [1.1 + i for i in range(HEAD_DIM // 2)],
            "original_max_position_embeddings": N_ORIGINAL,
            **attention,
        }
        for attention in ({}, {"attention_factor": 1.4})
    ],
}
# Gemma 4 rotates its two kinds of layers in ways of their own: its end-to-end test holds them.
ROTATING = [a for a in map(architecture_named, NAMES) if a and "rope_theta" in a.config.defaults and a.name != "gemma4"]
CASES = [(a, kind, fields) for a in ROTATING for kind in ("default", *a.graph.rope) for fields in FIELDS[kind]]


@pytest.mark.parametrize(("architecture", "kind", "fields"), CASES, ids=[f"{a.name}-{kind}" for a, kind, _ in CASES])
def test_frequencies_are_those_of_transformers(
    architecture: Architecture, kind: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    rope = {"rope_type": kind, "rope_theta": THETA, **fields}
    base = with_rope(tmp_path, architecture, rope)
    assert not list(rope_not_read.check(NO_ADAPTER, base))
    inverse, attention = of_transformers(rope)
    found = of_gguf(base)
    np.testing.assert_allclose(found[0], inverse, rtol=1e-6)
    assert found[1] == pytest.approx(attention, rel=1e-6)


def with_rope(tmp_path: Path, architecture: Architecture, rope: Mapping[str, object]) -> BaseModel:
    sections = {"mrope_section": [1, 1]} if architecture.graph.mrope else {}
    parameters = {**rope, **sections}
    whole = {"partial_rotary_factor": 1.0, "rope_parameters": parameters, "max_position_embeddings": N_CONTEXT}
    names = {"n_embd": HIDDEN, "n_head": N_HEAD, "n_layer": 1}
    model_type = next(name for name, found in MODEL_TYPES.items() if found == architecture.name)
    read = read_base_model(write_huggingface(tmp_path / "base", model_type=model_type, **names))
    return replace(read, config={**read.config, **whole})


def of_transformers(rope: Mapping[str, Any]) -> tuple[npt.NDArray[np.float64], float]:
    """The frequencies and the factor of cosines and sines, beyond the original context."""
    if rope["rope_type"] == "default":
        return THETA ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM), 1.0
    if rope["rope_type"] == "dynamic":  # with an alpha it is HunYuan's
        own = HunYuanDenseV1Config(rope_parameters=dict(rope), head_dim=HEAD_DIM)
        inverse, attention = HunYuanDenseV1RotaryEmbedding.compute_ntk_alpha_rope_parameters(own)
        return inverse.double().numpy(), attention
    config = AutoConfig.for_model(
        "llama",  # the formulas are one for all; only its config takes every type
        hidden_size=HEAD_DIM * N_HEAD,
        num_attention_heads=N_HEAD,
        max_position_embeddings=N_CONTEXT,
        rope_parameters={**rope, "original_max_position_embeddings": N_ORIGINAL}
        if rope["rope_type"] != "default"
        else rope,
    )
    inverse, attention = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, "cpu", N_CONTEXT)
    return inverse.double().numpy(), attention


def of_gguf(base: BaseModel) -> tuple[npt.NDArray[np.float64], float]:
    """What llama.cpp computes of the keys: rope_yarn and ggml_rope_yarn_corr_dims in ggml/src/ggml.c and ops.cpp."""
    entries = {entry.key.partition(".rope.")[2]: entry.value for entry in rope_key_values(base)}
    kv: dict[str, Any] = dict(entries)
    n = kv["dimension_count"]
    inverse = kv["freq_base"] ** (-np.arange(0, n, 2) / n)
    factors = {name: np.frombuffer(given.data, "<f8") for name, given in rope_factors(base)}
    for name in ("rope_freqs.weight", "rope_factors_long.weight"):
        inverse = inverse / factors.get(name, 1.0)
    kind, attention = kv.get("scaling.type", "default"), kv.get("scaling.attn_factor", 1.0)
    scaled = inverse / kv.get("scaling.factor", 1.0)
    if kind != "yarn":
        return scaled, attention
    low, high = (
        n * math.log(kv["scaling.original_context_length"] / (beta * 2 * math.pi)) / (2 * math.log(kv["freq_base"]))
        for beta in (32.0, 1.0)
    )
    low, high = max(0, math.floor(low)), min(n - 1, math.ceil(high))
    ramp = 1 - np.clip((np.arange(n // 2) - low) / max(0.001, high - low), 0, 1)
    return scaled * (1 - ramp) + inverse * ramp, attention * (1 + 0.1 * math.log(kv["scaling.factor"]))


def test_windowed_layers_have_a_base_of_their_own(tmp_path: Path) -> None:
    """Both spellings; gemma3.rope.freq_base_swa is read by llama_model_gemma3::load_arch_hparams."""
    whole = {"full_attention": {"rope_theta": 7e5}, "sliding_attention": {"rope_theta": 3e4}}
    base = read_base_model(write_huggingface(tmp_path / "base", model_type="gemma3_text"))
    for config in ({"rope_parameters": whole}, {"rope_theta": 7e5, "rope_local_base_freq": 3e4}):
        keys = {entry.key: entry.value for entry in rope_key_values(replace(base, config={**base.config, **config}))}
        assert keys["gemma3.rope.freq_base"] == 7e5
        assert keys["gemma3.rope.freq_base_swa"] == 3e4


@pytest.mark.parametrize("architecture", [a for a in ROTATING if a.graph.partial_rope], ids=lambda a: a.name)
def test_a_part_of_each_head_may_be_left_alone(architecture: Architecture, tmp_path: Path) -> None:
    base = with_rope(tmp_path, architecture, {"rope_theta": THETA, "partial_rotary_factor": 0.25})
    keys = {entry.key: entry.value for entry in rope_key_values(base)}
    assert keys[f"{architecture.name}.rope.dimension_count"] == HEAD_DIM // 4
