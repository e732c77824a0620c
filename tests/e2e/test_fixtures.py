"""The fixtures are what they say: the ground that every other end-to-end test stands on."""

from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from converter.derive.adapter import read_adapter
from converter.read.gguf_header import read_gguf_header
from converter.verification.llama_cpp import LlamaCpp, LlamaCppFailed
from converter.verification.reference import Reference
from fixtures.adapters import BASES, RECIPES, load_base, saved_logits, tiny_adapter
from fixtures.cache import cached
from fixtures.generated import write_gemma_2b_adapter, write_gemma_2b_head_adapter, write_safetensors
from fixtures.measure import kl
from fixtures.real import GEMMA3, SMOLLM2, RealModel
from fixtures.tiny import CONFIGS, MORE, OUTTYPES, TIED_FOR_GOOD, UNTIED_FOR_GOOD, TinyModel, token_sequences
from fixtures.train import TEXTS, trained_adapter, trained_on_packaged

LOADABLE = [
    TinyModel(name, tied, outtype)
    for name, tied, outtype in product([*CONFIGS, *MORE], (True, False), OUTTYPES)
    if name not in (UNTIED_FOR_GOOD if tied else TIED_FOR_GOOD)
]
# Measured, with a margin of 2 to 3. ggml rounds activations to the type of the weights they meet,
# and its GELU is a table of F16 values.
FLOORS = {"F32": 1e-11, "F16": 1e-5, "BF16": 1e-3, "Q8_0": 1e-2}
GELU_FLOOR = 2e-6

TEXT = "The keeper wrote that fog had come in from the north, and that 3 + 4 = 7."


@pytest.mark.llama
@pytest.mark.parametrize("model", LOADABLE, ids=str)
def test_both_forms_of_a_tiny_model_are_one_model(model: TinyModel, llama_cpp: LlamaCpp) -> None:
    floor = FLOORS[model.outtype] + (GELU_FLOOR if model.name.startswith(("gemma", "gpt2", "starcoder2")) else 0.0)
    assert kl(_transformers(model.hf), _stacked(llama_cpp, model.gguf)) < floor


@pytest.mark.llama
@pytest.mark.parametrize("outtype", OUTTYPES)
def test_both_forms_hold_the_same_values(outtype: str) -> None:
    model = TinyModel("llama", outtype=outtype)
    (stored,) = (t for t in GGUFReader(model.gguf).tensors if t.name == "blk.1.ffn_down.weight")
    assert stored.tensor_type.name == outtype
    values = load_base(model.hf).get_parameter("model.layers.1.mlp.down_proj.weight").detach().numpy()
    np.testing.assert_array_equal(dequantize(stored.data, stored.tensor_type), values)


@pytest.mark.llama
@pytest.mark.parametrize("name", TIED_FOR_GOOD)
def test_llama_cpp_reads_no_head_of_these(name: str, llama_cpp: LlamaCpp) -> None:
    with pytest.raises(LlamaCppFailed, match="wrong number of tensors"):
        llama_cpp.logits(TinyModel(name, tied=False).gguf, token_sequences())


@pytest.mark.llama
@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_the_sliding_window_is_felt(name: str) -> None:
    directory = TinyModel(name).hf
    wide = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", sliding_window=512
    )
    with torch.no_grad():
        without = wide(torch.tensor(token_sequences())).logits.numpy()
    assert kl(_transformers(directory), without) > 1e-2


@pytest.mark.llama
@pytest.mark.parametrize(("recipe", "name"), list(product(RECIPES, BASES)))
def test_an_adapter_has_an_effect_and_reloads(recipe: str, name: str) -> None:
    base = TinyModel(name)
    directory = tiny_adapter(recipe, base)
    base_logits, peft_logits = saved_logits(directory)
    assert kl(peft_logits, base_logits) > 0.3
    reference = Reference(base.hf, read_adapter(directory))
    for sequence, before, after in zip(token_sequences(), base_logits, peft_logits, strict=True):
        np.testing.assert_allclose(reference.base_logits(sequence), before, atol=1e-4)
        np.testing.assert_allclose(reference.logits(sequence), after, atol=1e-4)


@pytest.mark.llama
@pytest.mark.parametrize(
    ("recipe", "ends"),
    {
        "plain": (),
        "lm_head": ("lm_head.base_layer.weight", "lm_head.lora_A.weight", "lm_head.lora_B.weight"),
        "lm_head_without_base_layer": ("lm_head.lora_A.weight", "lm_head.lora_B.weight"),
        "embed_tokens": (
            "model.embed_tokens.base_layer.weight",
            "model.embed_tokens.lora_embedding_A",
            "model.embed_tokens.lora_embedding_B",
        ),
        "saved_lm_head": ("lm_head.weight",),
        "saved_embed_tokens": ("model.embed_tokens.weight",),
    }.items(),
)
def test_an_adapter_holds_what_peft_saves(recipe: str, ends: tuple[str, ...]) -> None:
    directory = tiny_adapter(recipe, TinyModel("llama"))
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {file.name for file in directory.iterdir()}
    names = {name.removeprefix("base_model.model.") for name in _tensors(directory)}
    in_layers = {name for name in names if name.startswith("model.layers.")}
    assert len(in_layers) == 42  # 3 layers of 7 modules of 2 factors
    assert names - in_layers == set(ends)


@pytest.mark.llama
@pytest.mark.parametrize(
    ("recipe", "dtype"),
    [("plain", torch.float32), ("plain_bf16", torch.bfloat16), ("plain_f16", torch.float16)],
)
def test_an_adapter_has_its_dtype(recipe: str, dtype: torch.dtype) -> None:
    tensors = _tensors(tiny_adapter(recipe, TinyModel("llama")))
    assert Counter(tensor.dtype for tensor in tensors.values()) == {dtype: 42}


@pytest.mark.llama
@pytest.mark.parametrize("name", BASES)
def test_a_tied_pair_is_one_delta_saved_twice(name: str) -> None:
    tensors = _tensors(tiny_adapter("tied_pair", TinyModel(name)))
    head, embedding = "base_model.model.lm_head.", "base_model.model.model.embed_tokens."
    assert torch.equal(tensors[f"{head}lora_A.weight"], tensors[f"{embedding}lora_embedding_B"].T)
    assert torch.equal(tensors[f"{head}lora_B.weight"], tensors[f"{embedding}lora_embedding_A"].T)


@pytest.mark.llama
def test_a_base_layer_is_the_embedding_unless_foreign() -> None:
    base = TinyModel("llama")
    embedding = load_base(base.hf).get_parameter("model.embed_tokens.weight")
    key = "base_model.model.lm_head.base_layer.weight"
    assert torch.equal(_tensors(tiny_adapter("lm_head", base))[key], embedding)
    assert not torch.allclose(_tensors(tiny_adapter("foreign_base_layer", base))[key], embedding, atol=0.1)


@pytest.mark.model
@pytest.mark.parametrize("model", [SMOLLM2, GEMMA3], ids=str)
def test_both_forms_of_a_real_model_are_one_model(model: RealModel, llama_cpp: LlamaCpp) -> None:
    tokens = AutoTokenizer.from_pretrained(model.hf)(TEXT).input_ids
    assert llama_cpp.tokenize(model.bf16_gguf, TEXT) == tokens
    with torch.no_grad():
        expected = load_base(model.hf)(torch.tensor([tokens])).logits[0].numpy()
    bf16, packaged = (llama_cpp.logits(gguf, [tokens])[0] for gguf in (model.bf16_gguf, model.packaged_gguf))
    assert kl(expected, bf16) < 2e-4  # bf16 activations
    assert kl(expected, packaged) < 2e-2  # activations in Q8_0


@pytest.mark.model
@pytest.mark.parametrize(("model", "effect"), [(SMOLLM2, 1.0), (GEMMA3, 2.0)], ids=str)
def test_forty_steps_are_a_real_fine_tune(model: RealModel, effect: float) -> None:
    tokens = AutoTokenizer.from_pretrained(model.hf)(TEXTS[0]).input_ids
    reference = Reference(model.hf, read_adapter(trained_adapter("lm_head", model)))
    assert kl(reference.logits(tokens), reference.base_logits(tokens)) > effect


@pytest.mark.model
def test_an_adapter_trained_on_the_packaged_base_carries_its_embedding() -> None:
    header = read_gguf_header(SMOLLM2.packaged_gguf)
    (stored,) = (tensor for tensor in header.tensors if tensor.name == "token_embd.weight")
    raw = np.memmap(header.path, np.uint8, "r", stored.offset, (stored.shape[0], stored.nbytes // stored.shape[0]))
    base_layer = _tensors(trained_on_packaged("lm_head", SMOLLM2))["base_model.model.lm_head.base_layer.weight"]
    np.testing.assert_array_equal(base_layer.numpy(), dequantize(raw, GGMLQuantizationType.Q8_0))


def test_a_fixture_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTER_TO_GGUF_CACHE", str(tmp_path))
    first = cached("one", lambda directory: (directory / "file").write_text("built"), sources=("cache",))
    again = cached("one", lambda directory: (directory / "file").write_text("built again"), sources=("cache",))
    assert first == again
    assert (again / "file").read_text() == "built"


def test_a_fixture_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").write_text("a fixture")
        raise OSError("disk full")

    monkeypatch.setenv("ADAPTER_TO_GGUF_CACHE", str(tmp_path))
    with pytest.raises(OSError, match="disk full"):
        cached("one", fail, sources=("cache",))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_is_written_without_torch_is_what_safetensors_reads(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_safetensors(path, {"a": ("F32", (2, 3), values.tobytes()), "b": ("F16", (0,), b"")}, {"format": "pt"})
    with safe_open(path, "np") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.keys() == ["a", "b"]
        np.testing.assert_array_equal(file.get_tensor("a"), values)


@pytest.mark.parametrize(
    ("write", "n_tensors", "megabytes"), [(write_gemma_2b_adapter, 252, 78), (write_gemma_2b_head_adapter, 254, 95)]
)
def test_the_benchmarks_adapters_have_gemma_2b_s_size(
    write: Callable[[Path], Path], n_tensors: int, megabytes: int, tmp_path: Path
) -> None:
    tensors = _tensors(write(tmp_path))
    assert len(tensors) == n_tensors
    assert round(sum(tensor.nbytes for tensor in tensors.values()) / 1e6) == megabytes


def _transformers(directory: Path) -> np.ndarray:
    with torch.no_grad():
        logits: np.ndarray = load_base(directory)(torch.tensor(token_sequences())).logits.numpy()
    return logits


def _stacked(llama_cpp: LlamaCpp, gguf: Path) -> np.ndarray:
    return np.stack(llama_cpp.logits(gguf, token_sequences()))


def _tensors(adapter: Path) -> dict[str, torch.Tensor]:
    return load_file(adapter / "adapter_model.safetensors")
