"""Keys, scales, tied pairs, and what of an adapter can't be read."""

import os
from pathlib import Path

import pytest

from converter.derive.adapter import read_adapter, scaling
from converter.derive.adapter_keys import parse_key
from converter.derive.patterns import Patterns
from converter.errors import COULD_NOT, ConverterError
from converter.read.adapter_config import AdapterConfig, read_adapter_config
from tests.rules.specimens import (
    EMBEDDING,
    HEAD,
    HIDDEN,
    PREFIX,
    RANK,
    VOCAB,
    Specimen,
    embedding_lora,
    head_lora,
    tensor,
)

UP = "model.layers.0.mlp.up_proj"
KEYS = {
    "base_model.model.lm_head.original_module.weight": ("lm_head", "original"),
    "base_model.model.lm_head.token_adapter.base_layer.weight": ("lm_head", "base_layer.weight"),
    "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": (
        "model.embed_tokens",
        "trainable_tokens_delta",
    ),
    f"base_model.model.{UP}.lora_A.weight": (UP, "lora_A"),
    f"{UP}.lora_A.weight": (UP, "lora_A"),
    f"base_model.model.base_model.model.{UP}.lora_B.weight": (UP, "lora_B"),
    f"base_model.model.{UP}.lora_B.default.weight": (UP, "lora_B"),
    f"base_model.model.{UP}.lora_B.my_adapter_2.weight": (UP, "lora_B"),
    f"base_model.model.language_model.{UP}.lora_A.weight": (f"language_model.{UP}", "lora_A"),
    "base_model.model.model.embed_tokens.lora_embedding_A": ("model.embed_tokens", "lora_embedding_A"),
    "base_model.model.model.embed_tokens.lora_embedding_B.default": ("model.embed_tokens", "lora_embedding_B"),
    f"base_model.model.{UP}.lora_magnitude_vector": (UP, "lora_magnitude_vector"),
    f"base_model.model.{UP}.lora_magnitude_vector.default.weight": (UP, "lora_magnitude_vector"),
    f"base_model.model.{UP}.lora_B.bias": (UP, "lora_B.bias"),
    "base_model.model.lm_head.base_layer.weight": ("lm_head", "base_layer.weight"),
    "base_model.model.lm_head.weight": ("lm_head", "weight"),
    "base_model.model.lm_head.modules_to_save.weight": ("lm_head", "weight"),
    "base_model.model.lm_head.modules_to_save.default.weight": ("lm_head", "weight"),
    f"base_model.model.{UP}.bias": (UP, "bias"),
    "model.soft_gate.weight": ("model.soft_gate", "weight"),  # contains oft_, and is no OFT
}
UNKNOWN = [
    f"base_model.model.{UP}.lora_E",
    f"base_model.model.{UP}.hada_w1_a",
    f"base_model.model.{UP}.vera_lambda_b.weight",
    "lora_unet_blocks_0.lora_down.weight",
    "weight",
    "",
    f"{'a.' * 200}lora_A.weight",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_keys_module_and_role(key: str) -> None:
    assert parse_key(key) == KEYS[key]


@pytest.mark.parametrize("key", UNKNOWN)
def test_a_key_of_no_known_form_is_kept_whole(key: str) -> None:
    assert parse_key(key) == (key, "unknown")


def config(**fields: object) -> AdapterConfig:
    return AdapterConfig(Path("adapter_config.json"), {}, **fields)  # type: ignore[arg-type]  # names vary


def test_the_first_alpha_of_alpha_pattern_wins() -> None:
    patterns = Patterns(config(lora_alpha=16.0, alpha_pattern={"up_proj": 8.0, r"layers\.0\..*": 4.0}))
    assert patterns.alpha(UP) == 8
    assert patterns.alpha("model.layers.0.mlp.gate_proj") == 4
    assert patterns.alpha("model.layers.1.mlp.gate_proj") == 16


def test_scaling_by_rank_and_rslora() -> None:
    assert scaling(config(), 16, 4) == 16 / 4
    assert scaling(config(use_rslora=True), 16, 4) == 16 / 2


def test_a_pattern_matches_whole_parts_of_the_path_only() -> None:
    assert Patterns(config(r=8, rank_pattern={"proj": 2})).rank(UP) == 8
    assert Patterns(config(r=8, rank_pattern={"up_proj": 2})).rank(UP) == 2


def test_scales_follow_the_path_as_saved(specimen: Specimen) -> None:
    specimen.tensors = {key.replace("model.model.", "model.model.language_model."): v for key, v in head_lora().items()}
    specimen.tensors |= {
        key.replace("lm_head", "model.language_model.layers.0.mlp.up_proj"): v for key, v in head_lora().items()
    }
    specimen.config["alpha_pattern"] = {"model.language_model.layers.0.mlp.up_proj": 2}
    specimen.write()
    pairs = {pair.module: pair.scaling for pair in read_adapter(specimen.directory).pairs}
    assert pairs == {"lm_head": 32 / RANK, UP: 2 / RANK}


@pytest.mark.parametrize(
    ("fields", "tied"),
    [
        ({"ensure_weight_tying": True}, True),
        ({"ensure_weight_tying": False}, False),
        ({"ensure_weight_tying": True, "alpha_pattern": {"lm_head": 1}}, False),
    ],
)
def test_a_tied_pair_shares_flag_and_scale(fields: dict[str, object], tied: bool, specimen: Specimen) -> None:
    specimen.config |= fields
    specimen.tensors |= head_lora() | embedding_lora()
    specimen.write()
    assert read_adapter(specimen.directory).is_tied_pair is tied


@pytest.mark.parametrize("module", [HEAD, EMBEDDING])
def test_magnitudes_part_a_tied_pair(module: str, specimen: Specimen) -> None:
    """They are of the embedding's columns, and of the head's rows."""
    specimen.config |= {"ensure_weight_tying": True, "use_dora": True}
    specimen.tensors |= head_lora() | embedding_lora() | {f"{module}.lora_magnitude_vector": tensor(HIDDEN)}
    specimen.write()
    assert not read_adapter(specimen.directory).is_tied_pair


@pytest.mark.parametrize("tied", [True, False])
def test_named_ends_are_one_only_if_they_were_trained_so(tied: bool, specimen: Specimen) -> None:
    specimen.config |= {"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": tied}
    specimen.tensors |= {f"{end}.weight": tensor(VOCAB, HIDDEN) for end in (HEAD, EMBEDDING)}
    specimen.write()
    assert read_adapter(specimen.directory).is_saved_pair == tied


def test_an_expert_scales_by_its_own_rank(specimen: Specimen) -> None:
    """Fused experts lie below each other in lora_A: 3 of rank 4."""
    specimen.config["target_parameters"] = ["mlp.experts.down_proj"]
    specimen.tensors = {
        f"{PREFIX}.model.layers.0.mlp.experts.lora_A.weight": tensor(3 * RANK, HIDDEN),
        f"{PREFIX}.model.layers.0.mlp.experts.lora_B.weight": tensor(HIDDEN, 3 * RANK),
    }
    specimen.write()
    (pair,) = read_adapter(specimen.directory).pairs
    assert (pair.n_experts, pair.rank, pair.scaling) == (3, RANK, 32 / RANK)


def test_an_embeddings_delta_is_transposed(specimen: Specimen) -> None:
    specimen.tensors = head_lora() | embedding_lora()
    specimen.write()
    head, embedding = read_adapter(specimen.directory).pairs
    assert (head.a.key, embedding.a.key) == (f"{HEAD}.lora_A.weight", f"{EMBEDDING}.lora_embedding_A")
    assert head.shape == embedding.shape == (48, 32)


def test_shards_are_read_as_one_adapter(specimen: Specimen) -> None:
    specimen.write()
    whole = [tensor.key for tensor in read_adapter(specimen.directory).tensors]
    index = specimen.write_shards()
    adapter = read_adapter(specimen.directory)
    assert sorted(tensor.key for tensor in adapter.tensors) == sorted(whole)
    assert adapter.index == index
    assert adapter.faults == ()


@pytest.mark.parametrize(
    ("name", "kind"), [("adapter_model.safetensors", "weights-missing"), ("adapter_config.json", "config-missing")]
)
def test_a_broken_link_is_a_fault(name: str, kind: str, specimen: Specimen) -> None:
    specimen.write()
    (specimen.directory / name).unlink()
    (specimen.directory / name).symlink_to("blobs/gone")
    assert [fault.name for fault in read_adapter(specimen.directory).faults] == [kind]


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_what_the_system_does_not_let_us_read_is_no_judgement(name: str, specimen: Specimen) -> None:
    specimen.write()
    (specimen.directory / name).unlink()
    (specimen.directory / name).symlink_to(name)  # to itself: even root can't follow it
    with pytest.raises(ConverterError, match=name) as caught:
        read_adapter(specimen.directory)
    assert caught.value.status == COULD_NOT


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", 0), ("r", 8.0), ("r", True), ("lora_alpha", "16"), ("lora_alpha", True), ("use_rslora", 1),
        ("rank_pattern", {"q": 0}), ("rank_pattern", []), ("alpha_pattern", {"q": None}), ("target_modules", 1),
        ("modules_to_save", "lm_head"), ("peft_type", 1), ("base_model_name_or_path", []),
    ],
)  # fmt: skip
def test_a_field_of_the_wrong_type_is_listed_and_reads_as_its_default(
    field: str, value: object, specimen: Specimen
) -> None:
    specimen.config[field] = value
    specimen.write()
    read = read_adapter_config(specimen.config_path)
    assert [name for name, _, _ in read.malformed] == [field]
    assert getattr(read, field) == getattr(AdapterConfig(specimen.config_path, {}), field)


def test_weights_are_opened_once_and_never_read(specimen: Specimen) -> None:
    """A header is enough: the file may be as long as it likes."""
    specimen.write()
    size = specimen.weights.stat().st_size
    os.truncate(specimen.weights, size + (1 << 40))  # sparse
    assert len(read_adapter(specimen.directory).tensors) == len(specimen.tensors)
