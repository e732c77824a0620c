"""Which GGUF tensors a module becomes, and which module a GGUF tensor comes from."""

import pytest

from converter.architectures import NAMES, Architecture, _laid_over, architecture_named, architecture_of_model_type

EXPERTS = "model.layers.3.mlp.experts"

HALVES = ("blk.{i}.ffn_gate_exps", "blk.{i}.ffn_up_exps")
PARTS = {  # of one module
    "qwen3next": ("blk.{i}.attn_qkv", "blk.{i}.attn_gate"),
    "deepseek2": ("blk.{i}.attn_k_b", "blk.{i}.attn_v_b"),
    "falcon": ("blk.{i}.attn_qkv",),  # taken apart and put together
    "gemma3n": ("altup_proj", "altup_unembd_proj"),  # stacks of several
    "granitehybrid": tuple(f"blk.{{i}}.ffn_{half}{of}" for half in ("gate", "up") for of in ("", "_shexp")),
}

# What others have halves of: experts without a gate.
WHOLE = {"nemotron_h_moe": ("blk.{i}.ffn_up_exps",)}


def _architecture(name: str) -> Architecture:
    architecture = architecture_named(name)
    assert architecture
    return architecture


@pytest.mark.parametrize("name", NAMES)
def test_each_tensor_comes_from_at_most_one_whole_module(name: str) -> None:
    architecture = _architecture(name)
    for places in architecture.modules.values():
        for place in places:
            source = architecture.source(place.tensor.replace("{i}", "7"))
            parts = {*HALVES, *PARTS.get(name, ())} - {*WHOLE.get(name, ())}
            assert (source is None) == (place.tensor in parts)
            if source:
                assert source.tensor == place.tensor.replace("{i}", "7")
                assert source in architecture.places(source.module)


def test_gate_and_up_of_fused_experts_are_halves_of_one_parameter() -> None:
    places = _architecture("qwen3moe").places(f"{EXPERTS}.gate_up_proj")
    assert [(place.tensor, place.rows, place.expert) for place in places] == [
        ("blk.3.ffn_gate_exps", "2 _ -> 2=0 _", None),
        ("blk.3.ffn_up_exps", "2 _ -> 2=1 _", None),
    ]


def test_an_expert_of_its_own_is_a_slab() -> None:
    place = _architecture("qwen3moe").place(f"{EXPERTS}.12.down_proj")
    assert place
    assert (place.module, place.tensor, place.expert) == (
        f"{EXPERTS}.12.down_proj",
        "blk.3.ffn_down_exps",
        12,
    )
    assert not place.is_whole_tensor


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
    assert not _architecture("qwen3moe").places(module)
    assert _architecture("qwen3moe").place(module) is None


def test_gpt2_stores_its_linear_layers_transposed() -> None:
    architecture = _architecture("gpt2")
    transposed = {module for module, (place, *_) in architecture.modules.items() if place.transposed}
    assert {module.rpartition(".")[2] for module in transposed} == {"c_attn", "c_proj", "c_fc"}


def test_a_table_says_only_what_differs_from_the_one_it_is_like() -> None:
    below = {
        "like": 1,
        "flags": {"a": True},
        "table": {"kept": {"x": 1, "y": 2}, "gone": {"z": 3}},
        "defaults": {"n": 1},
    }
    above = {"flags": {"a": False}, "table": {"kept": {"y": 4}, "gone": False, "new": 5}, "defaults": {"m": 2}}
    assert _laid_over(below, above) == {
        "like": 1,
        "flags": {"a": False},
        "table": {"kept": {"x": 1, "y": 4}, "new": 5},
        "defaults": {"m": 2},  # of another config class
    }


def test_a_vector_takes_no_lora() -> None:
    places = [place for name in NAMES for places in _architecture(name).modules.values() for place in places]
    assert not any(place.lora for place in places if len(place.shape) == 1)


@pytest.mark.parametrize(
    ("model_type", "text_type", "name", "n_key_heads"),
    [
        ("mistral3", "mistral", "mistral3", 8),  # Mistral Small 3.1
        ("mistral3", "ministral3", "mistral3", 8),  # Ministral 3
        ("llava", "mistral", "llama", 8),  # a wrapper that llama.cpp has no graph of its own for
        ("gemma3", "gemma3_text", "gemma3", 4),
        ("qwen3_5", "qwen3_5_text", "qwen35", 4),
        ("qwen3_5_moe", "qwen3_5_moe_text", "qwen35moe", 2),
        ("qwen2_5_vl", "qwen2_5_vl_text", "qwen2vl", 8),
        ("olmo3", None, "olmo2", None),
    ],
)
def test_a_multimodal_model_is_of_its_own_type(
    model_type: str, text_type: str | None, name: str, n_key_heads: int | None
) -> None:
    architecture = architecture_of_model_type(model_type, text_type)
    assert architecture
    assert architecture.name == name
    assert architecture.config.defaults.get("num_key_value_heads") == n_key_heads


def test_a_gguf_tells_variants_of_a_graph_by_a_key() -> None:
    plain, windowed = (architecture_named("olmo2", keys) for keys in ((), ("olmo2.attention.sliding_window",)))
    assert plain
    assert windowed
    assert (plain.graph.alternates, windowed.graph.alternates) == (False, True)


def test_an_alias_is_the_module_it_names() -> None:
    architecture = architecture_of_model_type("mixtral")
    assert architecture
    layer = "model.layers.3"
    alias, module = f"{layer}.block_sparse_moe.experts.2.w3", f"{layer}.mlp.experts.2.up_proj"
    assert architecture.canonical(alias) == module
    assert architecture.canonical(module) == module
    assert architecture.places(alias) == architecture.places(module) != ()
