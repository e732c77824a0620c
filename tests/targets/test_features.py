"""What adapters make use of: every field of PEFT's LoraConfig that changes what is served is a feature."""

from pathlib import Path

import pytest

from converter.derive.adapter import read_adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.derive.config_fields import FIELDS
from converter.targets.features import FEATURES, features
from tests.rules.specimens import (
    EMBEDDING,
    FFN,
    HEAD,
    HIDDEN,
    PREFIX,
    VOCAB,
    Specimen,
    base_embedding,
    embedding_lora,
    head_lora,
    lora,
    tensor,
    write_huggingface,
)

PLAIN = ["peft_files", "lora"]
# A value of each field that no plain LoRA has, and the feature that it is.
OF_FIELDS: dict[str, tuple[object, str]] = {
    "peft_type": ("VERA", "other_method"),
    "use_rslora": (True, "rslora"),
    "rank_pattern": ({"q_proj": 9}, "rank_pattern"),
    "alpha_pattern": ({"q_proj": 9}, "alpha_pattern"),
    "use_dora": (True, "dora"),
    "lora_bias": (True, "lora_bias"),
    "layer_replication": ([[0, 2], [1, 2]], "layer_replication"),
    "alora_invocation_tokens": ([1], "alora"),
    "use_qalora": (True, "qalora"),
    "use_bdlora": ({"x": 1}, "bdlora"),
    "init_lora_weights": ("pissa_niter_4", "pissa"),
    "megatron_config": ({"x": 1}, "megatron"),
    "arrow_config": ({"x": 1}, "arrow"),
    "kasa_config": ({"x": 1}, "kasa"),
    "monteclora_config": ({"x": 1}, "monteclora"),
}
# What these say lies in tensors, which are looked at themselves.
IN_TENSORS = {"modules_to_save", "trainable_token_indices", "ensure_weight_tying", "r", "lora_alpha"}


@pytest.fixture
def it(tmp_path: Path) -> Specimen:
    return Specimen(tmp_path / "adapter", write_huggingface(tmp_path / "base"))


def uses(it: Specimen, base: BaseModel | None = None) -> list[str]:
    it.write()
    found = base or (read_base_model(it.base) if it.base else None)
    return [use.feature for use in features(read_adapter(it.directory), found)]


def test_every_field_that_changes_what_is_served_is_a_feature() -> None:
    changing = {name for name, field in FIELDS.items() if field.fate in {"applied", "default"}}
    assert changing == OF_FIELDS.keys() | IN_TENSORS


def test_a_plain_adapter_has_none(it: Specimen) -> None:
    assert uses(it) == PLAIN


@pytest.mark.parametrize("field", sorted(OF_FIELDS))
def test_a_field(it: Specimen, field: str) -> None:
    value, feature = OF_FIELDS[field]
    it.config[field] = value
    assert feature in uses(it)


@pytest.mark.parametrize("stated", ["olora", "corda", "lora_ga", "loftq"])
def test_initialisations(it: Specimen, stated: str) -> None:
    it.config["init_lora_weights"] = stated
    assert uses(it) == [*PLAIN, stated]
    for harmless in (True, False, "gaussian", "orthogonal", "eva"):
        it.config["init_lora_weights"] = harmless
        assert uses(it) == PLAIN


@pytest.mark.parametrize(
    ("tensors", "config", "expected"),
    [
        (head_lora(), {}, ["head_lora_tied"]),
        (embedding_lora(), {}, ["embedding_lora_tied"]),
        ({**head_lora(), **embedding_lora()}, {"ensure_weight_tying": True}, ["tied_pair"]),
        ({**head_lora(), f"{HEAD}.base_layer.weight": base_embedding()}, {}, ["head_lora_tied", "base_layer"]),
        ({f"{HEAD}.weight": tensor(VOCAB, HIDDEN)}, {}, ["saved_head_tied"]),
        ({f"{EMBEDDING}.weight": tensor(VOCAB + 8, HIDDEN)}, {}, ["saved_embedding_tied", "new_tokens"]),
        ({f"{PREFIX}.model.layers.0.input_layernorm.weight": tensor(HIDDEN)}, {}, ["saved_norm"]),
        ({f"{PREFIX}.model.norm.weight": tensor(HIDDEN)}, {}, ["saved_norm"]),
        ({f"{PREFIX}.model.layers.0.mlp.up_proj.weight": tensor(FFN, HIDDEN)}, {}, ["saved_linear"]),
        ({f"{PREFIX}.model.layers.0.self_attn.q_proj.base_layer.bias": tensor(64)}, {"bias": "all"},
         ["bias_setting", "trained_bias"]),
        ({f"{EMBEDDING}.token_adapter.trainable_tokens_delta": tensor(1, HIDDEN)}, {"trainable_token_indices": [3]},
         ["token_rows"]),
        (lora(f"{PREFIX}.model.layers.0.mlp.experts.1.up_proj", FFN, HIDDEN), {}, ["expert_lora"]),
        (lora(f"{PREFIX}.model.layers.0.mlp.gate", 4, HIDDEN), {}, ["expert_lora"]),
        (lora(f"{PREFIX}.model.layers.0.conv.in_proj", HIDDEN, HIDDEN), {}, ["other_lora"]),
        (lora(f"{PREFIX}.model.visual.blocks.0.attn.qkv", HIDDEN, HIDDEN), {}, ["vision_lora"]),
        (lora(f"{PREFIX}.model.layers.0.mlp.up_proj", FFN, HIDDEN), {}, ["some_layers", "up_without_gate"]),
        ({}, {"lora_alpha": 2.5}, ["fractional_alpha"]),
        ({}, {"target_modules": r".*\.(q|v|down)_proj"}, ["target_regex"]),
    ],
)  # fmt: skip
def test_tensors(
    it: Specimen, tensors: dict[str, tuple[str, tuple[int, ...], bytes]], config: dict[str, object], expected: list[str]
) -> None:
    it.tensors |= tensors
    it.config |= config
    assert sorted(uses(it)) == sorted([*PLAIN, *expected])


def test_without_a_base_an_end_is_both(it: Specimen) -> None:
    it.tensors |= head_lora()
    it.base = None
    assert uses(it) == [*PLAIN, "head_lora_tied", "head_lora_untied"]


def test_files(it: Specimen) -> None:
    it.write_shards()
    assert it.base
    found = [use.feature for use in features(read_adapter(it.directory), read_base_model(it.base))]
    assert found == [*PLAIN, "sharded"]


def test_a_type_that_is_none_of_the_usual(it: Specimen) -> None:
    key = next(iter(it.tensors))
    _, shape, data = it.tensors[key]
    it.tensors[key] = ("F64", shape, data * 2)
    assert uses(it) == [*PLAIN, "other_type"]


def test_a_base_that_is_quantised(it: Specimen) -> None:
    assert it.base
    write_huggingface(it.base, quantization_config={"quant_method": "gptq"})
    assert uses(it) == [*PLAIN, "prequantized_base"]
    assert set(uses(it)) <= set(FEATURES)
