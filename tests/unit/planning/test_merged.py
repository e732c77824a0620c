"""What each part of an adapter does to a merged model's tensors, against PEFT's formulas written out in numpy."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from fixtures.generated import Tensor
from fixtures.tiny import TinyModel
from tests.rules.specimens import (
    EMBEDDING,
    HEAD_DIM,
    HIDDEN,
    N_HEAD,
    N_LAYER,
    PREFIX,
    SHAPES,
    VOCAB,
    Specimen,
    embedding_lora,
    lora,
    tensor,
    write_gguf,
)
from tests.unit.conversion import MODEL, UNTIED_MODEL, convert, values_of, write_base

Q = f"{PREFIX}.model.layers.1.self_attn.q_proj"
DOWN = f"{PREFIX}.model.layers.1.mlp.down_proj"
SCALING = 32 / 4  # lora_alpha / r of the specimen
# llama.cpp keeps a head's rotary pairs beside each other.
PAIRS = [
    h * HEAD_DIM + half * HEAD_DIM // 2 + i for h in range(N_HEAD) for i in range(HEAD_DIM // 2) for half in (0, 1)
]


@pytest.fixture
def specimen(tmp_path: Path) -> Specimen:
    return Specimen(tmp_path / "adapter", write_base(tmp_path / "base.gguf"))


def numbers(stored: Tensor) -> np.ndarray:
    _, shape, data = stored
    return np.frombuffer(data, "<f4").reshape(shape).astype(np.float64)


def delta(tensors: Mapping[str, Tensor], module: str) -> np.ndarray:
    a, b = (numbers(tensors[f"{module}.lora_{factor}.weight"]) for factor in "AB")
    product: np.ndarray = SCALING * b @ a
    return product


def base_of(specimen: Specimen, name: str) -> np.ndarray:
    assert specimen.base
    return values_of(specimen.base, name).astype(np.float64)


def vectors(suffix: str) -> dict[str, Tensor]:
    modules = {f"{PREFIX}.model.layers.{i}.{name}": shape for i in range(N_LAYER) for name, shape in SHAPES.items()}
    return {f"{module}.{suffix}": tensor(shape[0], seed=i) for i, (module, shape) in enumerate(modules.items())}


def magnitudes_near(specimen: Specimen) -> dict[str, Tensor]:
    """Magnitudes as training leaves them: the norms of the base's rows, moved a little."""
    result = {}
    for key in vectors("lora_magnitude_vector"):
        layer, name = key.split(".")[4], "attn_q" if "q_proj" in key else "attn_v" if "v_proj" in key else "ffn_down"
        norms = np.linalg.norm(base_of(specimen, f"blk.{layer}.{name}.weight"), axis=1)
        if name == "attn_q":
            norms[PAIRS] = norms.copy()  # as Hugging Face orders them
        moved = norms * np.random.default_rng(2).uniform(0.8, 1.2, norms.shape)
        result[key] = ("F32", norms.shape, moved.astype("<f4").tobytes())
    return result


def test_dora_gives_every_row_its_magnitude(specimen: Specimen, tmp_path: Path) -> None:
    specimen.config["use_dora"] = True
    magnitudes = magnitudes_near(specimen)
    specimen.tensors |= magnitudes
    convert(specimen, tmp_path / "model.gguf", MODEL)
    merged = base_of(specimen, "blk.1.attn_q.weight") + delta(specimen.tensors, Q)[PAIRS]
    m = numbers(magnitudes[f"{Q}.lora_magnitude_vector"])[PAIRS]
    wanted = merged * (m / np.linalg.norm(merged, axis=1))[:, None]
    np.testing.assert_allclose(values_of(tmp_path / "model.gguf", "blk.1.attn_q.weight"), wanted, rtol=1e-6)


def test_dora_gives_every_column_of_an_embedding_its_magnitude(specimen: Specimen, tmp_path: Path) -> None:
    specimen.config |= {"use_dora": True, "target_modules": ["embed_tokens"]}
    factors = embedding_lora()
    m = tensor(HIDDEN, seed=4)
    specimen.tensors = factors | {f"{EMBEDDING}.lora_magnitude_vector": m}
    convert(specimen, tmp_path / "model.gguf", UNTIED_MODEL)
    a, b = (numbers(factors[f"{EMBEDDING}.lora_embedding_{factor}"]) for factor in "AB")
    merged = base_of(specimen, "token_embd.weight") + SCALING * (b @ a).T
    wanted = merged * numbers(m) / np.linalg.norm(merged, axis=0)
    np.testing.assert_allclose(values_of(tmp_path / "model.gguf", "token_embd.weight"), wanted, rtol=1e-6)


def test_lora_bias_makes_a_bias(specimen: Specimen, tmp_path: Path) -> None:
    specimen.config["lora_bias"] = True
    biases = vectors("lora_B.bias")
    specimen.tensors |= biases
    convert(specimen, tmp_path / "model.gguf", MODEL)
    for name, module, order in (("attn_q", Q, PAIRS), ("ffn_down", DOWN, slice(None))):
        wanted = SCALING * numbers(biases[f"{module}.lora_B.bias"])[order]
        np.testing.assert_allclose(values_of(tmp_path / "model.gguf", f"blk.1.{name}.bias"), wanted, rtol=1e-6)


def test_a_trained_bias_replaces(specimen: Specimen, tmp_path: Path) -> None:
    specimen.config["bias"] = "all"
    biases = vectors("base_layer.bias")
    specimen.tensors |= biases
    convert(specimen, tmp_path / "model.gguf", MODEL)
    wanted = numbers(biases[f"{Q}.base_layer.bias"])[PAIRS]
    assert np.array_equal(values_of(tmp_path / "model.gguf", "blk.1.attn_q.bias"), wanted)


def test_a_saved_linear_replaces_in_ggufs_order(specimen: Specimen, tmp_path: Path) -> None:
    specimen.config |= {"modules_to_save": ["q_proj"], "target_modules": ["down_proj"]}
    saved = {f"{PREFIX}.model.layers.{i}.self_attn.q_proj.weight": tensor(64, HIDDEN, seed=i) for i in range(N_LAYER)}
    downs = (lora(f"{PREFIX}.model.layers.{i}.mlp.down_proj", *SHAPES["mlp.down_proj"]) for i in range(N_LAYER))
    specimen.tensors = saved | {key: value for pair in downs for key, value in pair.items()}
    convert(specimen, tmp_path / "model.gguf", MODEL)
    assert np.array_equal(
        values_of(tmp_path / "model.gguf", "blk.1.attn_q.weight"), numbers(saved[f"{Q}.weight"])[PAIRS]
    )


def test_a_saved_conv1d_is_turned_round(tmp_path: Path) -> None:
    """GPT-2 keeps its linears as (in, out); its biases go with the whole module."""
    specimen = Specimen(tmp_path / "adapter", TinyModel("gpt2").gguf)
    modules = [f"{PREFIX}.transformer.h.{i}.mlp.c_fc" for i in range(3)]
    specimen.config |= {"modules_to_save": ["c_fc"], "target_modules": ["c_attn"], "fan_in_fan_out": True}
    specimen.tensors = {f"{module}.weight": tensor(64, 160, seed=i) for i, module in enumerate(modules)}
    specimen.tensors |= {f"{module}.bias": tensor(160, seed=i) for i, module in enumerate(modules)}
    for i in range(3):
        specimen.tensors |= lora(f"{PREFIX}.transformer.h.{i}.attn.c_attn", 192, 64)
    convert(specimen, tmp_path / "model.gguf", MODEL)
    for parameter in ("weight", "bias"):
        wanted = numbers(specimen.tensors[f"{modules[1]}.{parameter}"]).T
        assert np.array_equal(values_of(tmp_path / "model.gguf", f"blk.1.ffn_up.{parameter}"), wanted)


@pytest.mark.parametrize("architecture", ["llama", "gemma"])
def test_a_saved_norm_of_gemma_gains_one(architecture: str, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base.gguf", architecture=architecture)
    specimen = Specimen(tmp_path / "adapter", base)
    norm = tensor(HIDDEN)
    specimen.config["modules_to_save"] = ["norm"]
    specimen.tensors[f"{PREFIX}.model.norm.weight"] = norm
    convert(specimen, tmp_path / "model.gguf", MODEL)
    wanted = numbers(norm) + (1.0 if architecture == "gemma" else 0.0)
    np.testing.assert_array_equal(values_of(tmp_path / "model.gguf", "output_norm.weight"), wanted.astype("<f4"))


def test_rows_of_tokens_move_both_ends_of_a_tied_base(specimen: Specimen, tmp_path: Path) -> None:
    specimen.config["trainable_token_indices"] = [7, 0]
    rows = tensor(2, HIDDEN, seed=8)
    specimen.tensors[f"{EMBEDDING}.token_adapter.trainable_tokens_delta"] = rows
    wanted = base_of(specimen, "token_embd.weight")
    wanted[[7, 0]] = numbers(rows)
    convert(specimen, tmp_path / "tied.gguf", MODEL)
    assert np.array_equal(values_of(tmp_path / "tied.gguf", "token_embd.weight"), wanted)
    convert(specimen, tmp_path / "untied.gguf", UNTIED_MODEL)
    for name in ("token_embd.weight", "output.weight"):
        assert np.array_equal(values_of(tmp_path / "untied.gguf", name), wanted)


def test_rows_of_the_head_move_the_head_alone(specimen: Specimen, tmp_path: Path) -> None:
    specimen.config["trainable_token_indices"] = {"lm_head": [VOCAB - 1]}
    row = tensor(1, HIDDEN, seed=8)
    specimen.tensors[f"{PREFIX}.lm_head.token_adapter.trainable_tokens_delta"] = row
    convert(specimen, tmp_path / "model.gguf", UNTIED_MODEL)
    base = base_of(specimen, "token_embd.weight")
    assert np.array_equal(values_of(tmp_path / "model.gguf", "token_embd.weight"), base)
    base[VOCAB - 1] = numbers(row)
    assert np.array_equal(values_of(tmp_path / "model.gguf", "output.weight"), base)


def test_rows_of_an_embedding_leave_a_head_of_its_own_alone(tmp_path: Path) -> None:
    """PEFT wraps the head with the embedding's rows in a tied model only."""
    specimen = Specimen(tmp_path / "adapter", write_gguf(tmp_path / "base.gguf", tied=False, seed=3))
    specimen.config["trainable_token_indices"] = [7, 0]
    rows = tensor(2, HIDDEN, seed=8)
    specimen.tensors[f"{EMBEDDING}.token_adapter.trainable_tokens_delta"] = rows
    convert(specimen, tmp_path / "model.gguf", MODEL)
    head = base_of(specimen, "output.weight")
    assert np.array_equal(values_of(tmp_path / "model.gguf", "output.weight"), head)
    embedding = base_of(specimen, "token_embd.weight")
    embedding[[7, 0]] = numbers(rows)
    assert np.array_equal(values_of(tmp_path / "model.gguf", "token_embd.weight"), embedding)
