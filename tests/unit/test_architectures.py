"""Which GGUF tensors a module becomes, and which module a GGUF tensor comes from."""

import pytest

from converter.architectures import NAMES, Architecture, architecture_named

EXPERTS = "model.layers.3.mlp.experts"


def _architecture(name: str) -> Architecture:
    architecture = architecture_named(name)
    assert architecture
    return architecture


@pytest.mark.parametrize("name", NAMES)
def test_each_tensor_comes_from_at_most_one_whole_module(name: str) -> None:
    architecture = _architecture(name)
    for targets in architecture.modules.values():
        for target in targets:
            source = architecture.source(target.tensor.replace("{i}", "7"))
            assert (source is None) == (target.tensor in {"blk.{i}.ffn_gate_exps", "blk.{i}.ffn_up_exps"})
            if source:
                assert source.tensor == target.tensor.replace("{i}", "7")
                assert architecture.target(source.module) == source


def test_gate_and_up_of_fused_experts_are_halves_of_one_parameter() -> None:
    targets = _architecture("qwen3moe").targets(f"{EXPERTS}.gate_up_proj")
    assert [(target.tensor, target.rows, target.expert) for target in targets] == [
        ("blk.3.ffn_gate_exps", "first_half", None),
        ("blk.3.ffn_up_exps", "second_half", None),
    ]


def test_an_expert_of_its_own_is_a_slab() -> None:
    target = _architecture("qwen3moe").target(f"{EXPERTS}.12.down_proj")
    assert target
    assert (target.module, target.tensor, target.expert) == (f"{EXPERTS}.12.down_proj", "blk.3.ffn_down_exps", 12)
    assert not target.is_whole_tensor


@pytest.mark.parametrize(
    "module",
    [
        "model.layers.3.mlp.experts.12",
        "model.layers.{i}.mlp.gate",
        "model.layers.03.mlp.gate",
        "model.layers.3.mlp.gate.1.x",
        "model.layers.x.mlp.gate",
        "",
    ],
)
def test_a_module_that_is_none(module: str) -> None:
    assert not _architecture("qwen3moe").targets(module)
    assert _architecture("qwen3moe").target(module) is None


def test_gpt2_stores_its_linear_layers_transposed() -> None:
    architecture = _architecture("gpt2")
    transposed = {module for module, (target, *_) in architecture.modules.items() if target.transposed}
    assert {module.rpartition(".")[2] for module in transposed} == {"c_attn", "c_proj", "c_fc"}
