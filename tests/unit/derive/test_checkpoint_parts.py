from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from converter.derive.base_model import BaseModel, read_base_model
from converter.derive.checkpoint_parts import left_over, misshaped, missing, parts_of
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
