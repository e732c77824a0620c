"""Bases of both formats: tie state, shapes, names, and what is refused."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from converter.derive.base_model import read_base_model
from converter.errors import COULD_NOT, ConverterError
from fixtures.generated import write_safetensors
from tests.rules.specimens import FFN, HEAD_DIM, HIDDEN, N_HEAD, VOCAB, tensor, write_gguf, write_huggingface

Q_SHAPE = (N_HEAD * HEAD_DIM, HIDDEN)


def test_both_formats_have_the_same_shapes(tmp_path: Path) -> None:
    gguf = read_base_model(write_gguf(tmp_path / "base.gguf"))
    config = read_base_model(write_huggingface(tmp_path / "base"))
    for module in ("lm_head", "model.embed_tokens", "model.norm", "model.layers.1.self_attn.q_proj"):
        assert gguf.shape(module) == config.shape(module)
    assert gguf.shape("model.layers.0.self_attn.q_proj") == Q_SHAPE
    assert config.shape("model.layers.0.mlp.down_proj") == (HIDDEN, FFN)
    assert gguf.shape("model.layers.2.mlp.down_proj") is None
    assert config.shape("model.vision_tower.q_proj") is None


@pytest.mark.parametrize("tied", [True, False])
def test_tie_state(tied: bool, tmp_path: Path) -> None:
    gguf = read_base_model(write_gguf(tmp_path / "base.gguf", tied=tied))
    assert gguf.tied is tied
    assert (gguf.weight("lm_head") == gguf.weight("model.embed_tokens")) is tied
    assert read_base_model(write_huggingface(tmp_path / "base", tie_word_embeddings=tied)).tied is tied


@pytest.mark.parametrize(("model_type", "tied"), [("llama", False), ("gemma", True), ("gemma3_text", True)])
def test_a_config_that_says_nothing_has_its_classs_default(model_type: str, tied: bool, tmp_path: Path) -> None:
    write_huggingface(tmp_path, model_type=model_type, tie_word_embeddings=None)
    assert read_base_model(tmp_path).tied is tied


def test_a_multimodal_config_is_its_text_model(tmp_path: Path) -> None:
    text = json.loads((write_huggingface(tmp_path) / "config.json").read_text(encoding="utf-8"))
    text["model_type"] = "gemma3_text"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}), encoding="utf-8")
    base = read_base_model(tmp_path)
    assert base.architecture
    assert (base.architecture.name, base.dims["hidden"]) == ("gemma3", HIDDEN)


def test_weights_of_a_directory(tmp_path: Path) -> None:
    write_huggingface(tmp_path)
    write_safetensors(tmp_path / "model.safetensors", {"model.embed_tokens.weight": tensor(VOCAB + 1, HIDDEN)})
    base = read_base_model(tmp_path)
    assert base.shape("lm_head") == (VOCAB + 1, HIDDEN)  # the file knows better than the config


GPT2 = {"model_type": "gpt2", "vocab_size": 40, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_inner": None}
EXPERTS = {
    "hidden_size": 8,
    "num_attention_heads": 2,
    "head_dim": 4,
    "moe_intermediate_size": 6,
    "num_hidden_layers": 1,
}


def _config(directory: Path, **fields: object) -> Path:
    (directory / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    return directory


def test_gpt2_s_config_has_names_of_its_own(tmp_path: Path) -> None:
    base = read_base_model(_config(tmp_path, **GPT2))
    assert base.tied
    assert base.shape("transformer.h.1.attn.c_attn") == (24, 8)
    assert base.shape("transformer.h.1.mlp.c_proj") == (8, 32)  # n_inner is four times the width
    assert base.shape("transformer.wpe") == (1024, 8)
    assert base.shape("lm_head") == base.shape("model.embed_tokens") == (40, 8)
    assert base.shape("transformer.h.2.attn.c_attn") is None


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_gpt2_s_weights_are_transposed_and_the_hub_s_are_of_the_bare_model(prefix: str, tmp_path: Path) -> None:
    _config(tmp_path, **GPT2)
    weights = {f"{prefix}h.0.attn.c_attn.weight": tensor(8, 24), f"{prefix}wte.weight": tensor(41, 8)}
    write_safetensors(tmp_path / "model.safetensors", weights)
    base = read_base_model(tmp_path)
    assert base.shape("transformer.h.0.attn.c_attn") == (24, 8)
    assert base.shape("lm_head") == (41, 8)
    assert base.shape("transformer.h.1.attn.c_attn") is None


@pytest.mark.parametrize("field", ["num_experts", "num_local_experts"])
def test_experts_are_fused_or_modules_of_their_own(field: str, tmp_path: Path) -> None:
    _config(tmp_path, model_type="qwen3_moe", **EXPERTS, **{field: 3})
    # As transformers 5 saves a model whose experts it fuses.
    weights = {"model.layers.0.mlp.experts.0.gate_proj.weight": tensor(6, 8)}
    write_safetensors(tmp_path / "model.safetensors", weights)
    base = read_base_model(tmp_path)
    assert base.shape("model.layers.0.mlp.experts.gate_up_proj") == (3, 12, 8)
    assert base.shape("model.layers.0.mlp.experts.down_proj") == (3, 8, 6)
    assert base.shape("model.layers.0.mlp.experts.2.down_proj") == (8, 6)
    assert base.shape("model.layers.0.mlp.experts.3.down_proj") is None
    assert base.shape("model.layers.0.mlp.gate_proj") is None


def test_experts_of_a_gguf(tmp_path: Path) -> None:
    base = read_base_model(_write_experts(tmp_path / "base.gguf"))
    assert base.shape("model.layers.0.mlp.experts.gate_up_proj") == (3, 12, 8)
    assert base.shape("model.layers.0.mlp.experts.down_proj") == (3, 8, 6)
    assert base.shape("model.layers.0.mlp.experts.2.gate_proj") == (6, 8)
    assert base.shape("model.layers.0.mlp.experts.3.gate_proj") is None
    assert base.shape("model.layers.1.mlp.experts.down_proj") is None
    assert [t.tensor for t in base.places("model.layers.0.mlp.gate")] == ["blk.0.ffn_gate_inp"]


def _write_experts(path: Path) -> Path:
    writer = GGUFWriter(path, "qwen3moe")
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_expert_count(3)
    writer.add_expert_feed_forward_length(6)
    shapes = {"token_embd": (40, 8), "blk.0.ffn_gate_exps": (3, 6, 8), "blk.0.ffn_down_exps": (3, 8, 6)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_label_of_a_path_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_huggingface(tmp_path / "my-base")
    monkeypatch.chdir(tmp_path / "my-base")
    assert read_base_model(Path()).label == "my-base"


def _refused(path: Path, match: str) -> None:
    with pytest.raises(ConverterError, match=match) as caught:
        read_base_model(path)
    assert caught.value.status == COULD_NOT


def test_bases_that_are_none(tmp_path: Path) -> None:
    _refused(tmp_path / "nowhere", "no such base")
    _refused(tmp_path, "no config.json")
    (tmp_path / "config.json").write_text("[", encoding="utf-8")
    _refused(tmp_path, "not JSON")
    write_huggingface(tmp_path, hidden_size="wide")
    _refused(tmp_path, "hidden_size is 'wide'")


def test_a_missing_shard_of_a_directory(tmp_path: Path) -> None:
    write_huggingface(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}), encoding="utf-8")
    _refused(tmp_path, re.escape("model-1.safetensors"))


@pytest.mark.parametrize(("kind", "match"), [("adapter", "general.type"), ("mmproj", "general.type")])
def test_a_gguf_of_another_kind(kind: str, match: str, tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_type(kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    _refused(tmp_path / "x.gguf", match)


def test_split_files_are_read_as_one(tmp_path: Path) -> None:
    for number in (1, 2):
        writer = GGUFWriter(tmp_path / f"m-0000{number}-of-00002.gguf", "llama")
        writer.add_uint16("split.count", 2)
        for key in ("embedding_length", "block_count", "feed_forward_length", "attention.head_count"):
            writer.add_uint32(f"llama.{key}", 32)
        name = "token_embd.weight" if number == 1 else "output.weight"
        writer.add_tensor(name, np.zeros((VOCAB, HIDDEN), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    first = tmp_path / "m-00001-of-00002.gguf"
    assert not read_base_model(first).tied
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    _refused(first, "needs them all")
    _refused(first.rename(tmp_path / "m.gguf"), "isn't named")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, wanted a whole number from 1 to 1000"),
        ({"hidden_size": 1 << 31}, "hidden_size is 2147483648, wanted a whole number from 1 to 2147483647"),
        ({"_name_or_path": "\ud800"}, "half of a surrogate pair"),
        ({"x": [[]] * 600_000}, "bytes|values"),
    ],
)
def test_a_config_beyond_measure_is_refused(config: dict[str, object], message: str, tmp_path: Path) -> None:
    write_huggingface(tmp_path, **config)
    with pytest.raises(ConverterError, match=message) as refused:
        read_base_model(tmp_path)
    assert refused.value.status == COULD_NOT


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.safetensors.index.json"])
def test_a_pipe_in_a_base_is_refused(name: str, tmp_path: Path) -> None:
    write_huggingface(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(ConverterError, match=f"{name}: is a named pipe, wanted a file") as refused:
        read_base_model(tmp_path)
    assert refused.value.status == COULD_NOT


@pytest.mark.timeout(10)
def test_a_base_that_is_a_pipe_or_has_an_impossible_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ConverterError, match="is a named pipe, wanted a file"):
        read_base_model(tmp_path / "pipe.gguf")
    for name in ("a" * 5000, "a\0b"):
        with pytest.raises(ConverterError) as refused:
            read_base_model(tmp_path / name)
        assert refused.value.status == COULD_NOT


@pytest.mark.parametrize(
    ("says", "is_known"), [(True, False), (False, True), (None, True), ("vision", True)]
)  # "vision": of images alone
def test_a_gemma_that_looks_both_ways_is_another_graph(says: object, is_known: bool, tmp_path: Path) -> None:
    """EmbeddingGemma: llama.cpp refuses a LoRA of gemma3 on it."""
    base = read_base_model(write_huggingface(tmp_path, model_type="gemma3_text", use_bidirectional_attention=says))
    assert (base.architecture is not None) is is_known
    assert base.model_type == ("gemma3_text" if is_known else "gemma-embedding")


@pytest.mark.parametrize("prefix", ["", "model.text_model.", "model.language_model.", "language_model.model."])
def test_the_text_model_is_read_whatever_it_was_saved_within(prefix: str, tmp_path: Path) -> None:
    write_huggingface(tmp_path)
    names = ("embed_tokens.weight", "norm.weight", "layers.1.input_layernorm.weight")
    tensors = {f"{prefix}{name}": tensor(HIDDEN) for name in names}
    write_safetensors(tmp_path / "model.safetensors", tensors)
    assert set(read_base_model(tmp_path).tensors) == {f"model.{name}" for name in names}
