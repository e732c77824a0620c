from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from converter.read.base_model import BaseModel, read_base_model
from converter.read.checkpoint_parts import left_over, misshaped, missing, parts_of
from converter.read.graph_settings import ignored_window, unread_settings
from converter.read.stored import StoredTensor
from tests.rules.bad.checkpoints import write_checkpoint
from tests.rules.specimens import HIDDEN, N_LAYER, write_huggingface


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return read_base_model(write_checkpoint(tmp_path / "base"))


def with_tensors(base: BaseModel, tensors: Mapping[str, tuple[int, ...]]) -> BaseModel:
    return replace(base, tensors={n: StoredTensor(base.path, 0, 0, shape, "F32") for n, shape in tensors.items()})


def test_a_whole_checkpoint_lacks_nothing_and_has_nothing_too_much(base: BaseModel) -> None:
    assert not [*missing(base), *left_over(base), *misshaped(base)]
    assert {len(parts) for parts in parts_of(base).values()} == {1}


def test_a_tied_head_is_neither_missing_nor_left_over(base: BaseModel) -> None:
    with_head = replace(base, tensors={**base.tensors, "lm_head.weight": base.tensors["model.embed_tokens.weight"]})
    assert not [*missing(with_head), *left_over(with_head)]
    assert "output.weight" not in parts_of(with_head)
    untied = replace(with_head, tied=False)
    assert "output.weight" in parts_of(untied)
    assert list(missing(replace(base, tied=False))) == ["output.weight"]


def test_buffers_and_towers_are_needless(base: BaseModel) -> None:
    names = ("model.layers.0.self_attn.rotary_emb.inv_freq", "vision_tower.patch.weight", "model.vision_tower.x")
    assert not list(left_over(with_tensors(base, dict.fromkeys(names, (4,)))))
    assert list(left_over(with_tensors(base, {"model.layers.0.self_attn.sinks": (4,)})))


EXPERTS = {"model_type": "qwen3_moe", "num_experts": 3, "moe_intermediate_size": 24, "norm_topk_prob": True}


def test_experts_come_fused_or_one_by_one(tmp_path: Path) -> None:
    base = read_base_model(write_huggingface(tmp_path / "base", **EXPERTS))
    layers = [f"model.layers.{i}.mlp.experts" for i in range(N_LAYER)]
    fused = {f"{layer}.gate_up_proj": (3, 48, HIDDEN) for layer in layers}
    fused |= {f"{layer}.down_proj": (3, HIDDEN, 24) for layer in layers}
    single = {
        f"{layer}.{e}.{name}.weight": (HIDDEN, 24) if name == "down_proj" else (24, HIDDEN)
        for layer in layers
        for e in range(3)
        for name in ("gate_proj", "up_proj", "down_proj")
    }
    for tensors in (fused, single):
        assert not [name for name in missing(with_tensors(base, tensors)) if "exps" in name]
        assert not [*left_over(with_tensors(base, tensors)), *misshaped(with_tensors(base, tensors))]
    del single["model.layers.1.mlp.experts.2.up_proj.weight"]
    assert [name for name in missing(with_tensors(base, single)) if "exps" in name] == ["blk.1.ffn_up_exps.weight"]


GEMMA3 = {"model_type": "gemma3_text", "query_pre_attn_scalar": 16}
LOCAL, GLOBAL = "sliding_attention", "full_attention"


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (GEMMA3, None),
        ({**GEMMA3, "layer_types": [LOCAL, LOCAL]}, None),
        ({**GEMMA3, "layer_types": [LOCAL, GLOBAL]}, "layer_types"),
        ({**GEMMA3, "sliding_window_pattern": 3}, "sliding_window_pattern"),
        ({**GEMMA3, "query_pre_attn_scalar": 17}, "query_pre_attn_scalar"),
        ({**GEMMA3, "sliding_window": None}, "sliding_window"),
        ({**GEMMA3, "attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({**GEMMA3, "use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"model_type": "smollm3", "no_rope_layers": [1, 1]}, None),
        ({"model_type": "smollm3", "no_rope_layers": [1, 0]}, "no_rope_layers"),
        ({**EXPERTS, "norm_topk_prob": False}, "norm_topk_prob"),
        ({**EXPERTS, "mlp_only_layers": [0]}, "mlp_only_layers"),
        ({"model_type": "olmo2", "tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"model_type": "olmo2", "tie_word_embeddings": False}, None),
    ],
)
def test_settings_that_a_graph_does_not_follow(config: dict[str, object], field: str | None, tmp_path: Path) -> None:
    base = read_base_model(write_huggingface(tmp_path / "base", **config))
    assert [name for name, _, _ in unread_settings(base)] == ([field] if field else [])


def test_a_window_is_ignored_where_the_graph_has_none(tmp_path: Path) -> None:
    for config, window in (
        ({"model_type": "mistral", "sliding_window": 4096, "max_position_embeddings": 32768}, 4096),
        ({"model_type": "mistral", "sliding_window": 4096, "max_position_embeddings": 4096}, None),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}, None),
        ({"model_type": "gemma2", "sliding_window": 4096}, None),
    ):
        assert ignored_window(read_base_model(write_huggingface(tmp_path / "base", **config))) == window
