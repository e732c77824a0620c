"""A GGUF made of a Hugging Face directory is the model of that directory.

Two proofs: every tensor is that of the tests' own GGUF, and llama.cpp's logits are those of transformers at the noise
floor of the architecture.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from converter.architectures import Architecture, architecture_of_model_type
from converter.checking import check_adapter
from converter.conversion import Written, plan, write
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import Deployment
from converter.planning.base_tensors import base_tensors
from converter.planning.conversion_plan import PlannedFile
from converter.planning.metadata import base_key_values
from converter.read.gguf_header import GgufTensor, read_gguf_header
from converter.verification.llama_cpp import LlamaCpp
from converter.writing.gguf_file import write_gguf
from fixtures.adapters import BASES, load_base, tiny_adapter
from fixtures.measure import kl
from fixtures.real import GEMMA3, SMOLLM2, RealModel
from fixtures.tiny import CONFIGS, MORE, N_VOCAB, TIED_FOR_GOOD, UNTIED_FOR_GOOD, TinyModel, token_sequences
from fixtures.train import TEXTS, trained_adapter
from fixtures.trained_tokenizers import write_byte_level
from tests.e2e.test_new_tokens import Story

pytestmark = pytest.mark.llama

Array = npt.NDArray[np.float32]
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# Measured, with a margin: ggml rounds activations to the weights' type, and its GELU is a table of F16 values.
FLOORS = {"F32": 1e-11, "F16": 1e-5, "BF16": 1e-3}
GELU_FLOOR = 2e-6
NAMES = (*CONFIGS, *MORE)
MODELS = [
    TinyModel(name, tied)
    for name, tied in product(NAMES, (True, False))
    if name not in (UNTIED_FOR_GOOD if tied else TIED_FOR_GOOD)
]


def architecture_of(name: str) -> Architecture:
    found = architecture_of_model_type({**CONFIGS, **MORE}[name][0])
    assert found
    return found


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_every_tensor_is_that_of_the_tests_own_gguf(model: TinyModel, tmp_path: Path) -> None:
    ours, theirs = _tensors(_gguf(_directory(model, tmp_path), tmp_path)), _tensors(model.gguf)
    assert ours.keys() == theirs.keys()
    for name, (dtype, values) in ours.items():
        assert dtype == theirs[name][0], name
        np.testing.assert_array_equal(values, theirs[name][1], err_msg=name)


@pytest.mark.parametrize(("name", "dtype"), list(product(NAMES, DTYPES)))
def test_the_logits_are_those_of_transformers(name: str, dtype: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    directory = _directory(TinyModel(name, tied=name not in UNTIED_FOR_GOOD), tmp_path, dtype)
    gguf = _gguf(directory, tmp_path)
    matrices = {kind for kind, values in _tensors(gguf).values() if values.ndim > 1}
    assert dtype in matrices
    assert matrices <= {dtype, "F32"}
    floor = FLOORS[dtype] + (GELU_FLOOR if name.startswith(("gemma", "gpt2", "starcoder2")) else 0.0)
    assert kl(_transformers(directory), _llama_cpp(llama_cpp, gguf)) < floor


@pytest.mark.parametrize(("name", "recipe"), [*product(CONFIGS, ["plain"]), *product(BASES, ["lm_head", "tied_pair"])])
def test_an_adapter_over_it_is_the_adapter_over_the_gguf(name: str, recipe: str, tmp_path: Path) -> None:
    """Merges over a GGUF base are held to PEFT elsewhere: over a directory they have to be the same, bit for bit."""
    model = TinyModel(name, tied=name not in UNTIED_FOR_GOOD)
    adapter = read_adapter(tiny_adapter(recipe, model))
    deployment = Deployment("model", untie=recipe == "lm_head", outtype="f32", **_native(name, recipe))
    outputs = []
    for path in (_directory(model, tmp_path), model.gguf):
        base = read_base_model(path)
        output = tmp_path / f"{base.format}.gguf"
        write(plan(adapter, base, deployment), output)
        outputs.append(_tensors(output))
    of_directory, of_gguf = outputs
    assert of_directory.keys() == of_gguf.keys()
    for key, (dtype, values) in of_directory.items():
        assert dtype == of_gguf[key][0], key
        np.testing.assert_array_equal(values, of_gguf[key][1], err_msg=key)


def _native(name: str, recipe: str) -> dict[str, Any]:
    return {"host": "native"} if name in TIED_FOR_GOOD and recipe == "lm_head" else {}


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"factor": 4.0, "original_max_position_embeddings": 128}
ROPES: Mapping[str, Mapping[str, object]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "yarn": {"rope_type": "yarn", **YARN},
    "yarn-attention": {"rope_type": "yarn", **YARN, "attention_factor": 1.3, "beta_fast": 32.0},
    "llama3": {"rope_type": "llama3", **LLAMA3},
    "old-names": {"type": "yarn", **YARN},
}


# Every type that an architecture's table names is tried on its tiny models; test_longrope has its own way of telling.
ROPES_OF: Mapping[str, tuple[str, ...]] = {
    "linear": ("linear",),
    "yarn": ("yarn", "yarn-attention"),
    "llama3": ("llama3",),
    "longrope": (),
}
ROPE_CASES = [
    *((name, rope) for name in NAMES for kind in architecture_of(name).graph.rope for rope in ROPES_OF[kind]),
    ("llama", "old-names"),
]


@pytest.mark.parametrize(("name", "rope"), ROPE_CASES)
def test_rope_scaling(name: str, rope: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    directory = _directory(TinyModel(name, tied=name not in UNTIED_FOR_GOOD), tmp_path)
    plain = _transformers(directory)
    _edit_config(directory, _old_rope if rope == "old-names" else _new_rope, ROPES[rope])
    scaled = _transformers(directory)
    assert kl(plain, scaled) > 1e-3  # the scaling is felt
    floor = 1e-10 + (GELU_FLOOR if name.startswith(("gemma", "starcoder2")) else 0.0)
    assert kl(scaled, _llama_cpp(llama_cpp, _gguf(directory, tmp_path))) < floor


def test_windowed_layers_rotate_by_a_base_of_their_own(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    directory = _directory(TinyModel("gemma3"), tmp_path)
    plain = _transformers(directory)
    _edit_config(directory, _local_theta, 50.0)
    changed = _transformers(directory)
    assert kl(plain, changed) > 1e-3
    assert kl(changed, _llama_cpp(llama_cpp, _gguf(directory, tmp_path))) < 1e-10 + GELU_FLOOR


def _local_theta(config: dict[str, Any], theta: float) -> None:
    config["rope_parameters"]["sliding_attention"]["rope_theta"] = theta


def _new_rope(config: dict[str, Any], scaling: Mapping[str, object]) -> None:
    parameters = config["rope_parameters"].get("full_attention", config["rope_parameters"])
    parameters |= scaling


def _old_rope(config: dict[str, Any], scaling: Mapping[str, object]) -> None:
    """As transformers 4 wrote it."""
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["rope_scaling"] = dict(scaling)


def _edit_config(directory: Path, edit: Callable[..., None], *values: object) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_bytes())
    edit(config, *values)
    path.write_text(json.dumps(config), encoding="utf-8")


def test_fused_experts(tmp_path: Path) -> None:
    """A checkpoint that transformers saves has experts one by one, one of its model's parameters has them fused."""
    model = TinyModel("qwen3moe")
    directory = _directory(model, tmp_path)
    weights = directory / "model.safetensors"
    fused = {name: parameter.detach().contiguous() for name, parameter in load_base(model.hf).named_parameters()}
    weights.unlink()
    save_file(fused, weights)
    assert any(name.endswith("experts.gate_up_proj") for name in fused)
    ours, theirs = _tensors(_gguf(directory, tmp_path)), _tensors(model.gguf)
    assert ours.keys() == theirs.keys()
    for name, (_, values) in ours.items():
        np.testing.assert_array_equal(values, theirs[name][1], err_msg=name)


def test_a_sharded_checkpoint(tmp_path: Path) -> None:
    model = TinyModel("llama")
    directory = _directory(model, tmp_path)
    (directory / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(model.hf).save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    shards = list((tmp_path / "sharded").glob("model*.safetensors*"))
    assert len(shards) > 2
    for shard in shards:
        shutil.copy(shard, directory)
    ours, theirs = _tensors(_gguf(directory, tmp_path)), _tensors(model.gguf)
    assert ours.keys() == theirs.keys()
    for name, (_, values) in ours.items():
        np.testing.assert_array_equal(values, theirs[name][1], err_msg=name)


def test_untied_and_hot_swappable(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """--untie --to lora: the untied base comes from the directory too."""
    model = TinyModel("llama")
    adapter, base = read_adapter(tiny_adapter("lm_head", model)), read_base_model(_directory(model, tmp_path))
    deployment = Deployment("lora", untie=True)
    for _ in range(2):  # the second time the untied base is there
        written = write(plan(adapter, base, deployment), tmp_path / "both")
    assert [file.reused for file in written] == [True, False]
    untied, lora = (file.path for file in written)
    over_gguf = read_base_model(model.gguf)
    other = write(plan(adapter, over_gguf, deployment), tmp_path / "of-gguf")
    wanted = np.stack(llama_cpp.logits(other[0].path, token_sequences(), lora=other[1].path))
    np.testing.assert_array_equal(np.stack(llama_cpp.logits(untied, token_sequences(), lora=lora)), wanted)


@pytest.mark.model
@pytest.mark.parametrize("model", [SMOLLM2, GEMMA3], ids=str)
def test_a_real_model(model: RealModel, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """The directory and the GGUF that hold the same numbers become the same model, tokens included."""
    adapter = read_adapter(trained_adapter("lm_head", model))
    outputs: list[Written] = []
    for path in (model.hf, model.bf16_gguf):
        base = read_base_model(path)
        output = tmp_path / f"{base.format}.gguf"
        outputs += write(plan(adapter, base, Deployment("model", untie=True)), output)
    ours, theirs = (read_gguf_header(output.path) for output in outputs)
    assert ours.by_name.keys() == theirs.by_name.keys()
    for name, tensor in ours.by_name.items():
        other = theirs.by_name[name]
        assert (tensor.shape, tensor.type) == (other.shape, other.type)
        assert np.array_equal(_bytes(ours.path, tensor), _bytes(theirs.path, other)), name
    tokens = [llama_cpp.tokenize(output.path, TEXTS[0]) for output in outputs]
    assert tokens[0] == tokens[1]


def _bytes(path: Path, tensor: GgufTensor) -> npt.NDArray[np.uint8]:
    return np.memmap(path, np.uint8, "r", tensor.offset, (tensor.nbytes,))


def test_new_tokens_over_a_directory(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """The base's tokenizer, grown by the adapter's, gives the ids of transformers, and the logits of PEFT."""
    story = Story(tmp_path, "qwen2")
    story.base = tmp_path / "base"
    shutil.copytree(TinyModel("qwen2").hf, story.base)
    story.tokenizer.save_pretrained(story.base)
    story.add_tokens()
    story.resize()
    story.train()
    kv = read_base_model(story.check(llama_cpp)).shards[0].kv
    assert kv["tokenizer.ggml.eos_token_id"] == N_VOCAB + 1
    assert kv["qwen2.vocab_size"] == N_VOCAB + 2


def test_longrope(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """llama.cpp takes the long factors in a context beyond the original one, transformers in a text beyond it."""
    factors = {"short_factor": [1.0 + 0.1 * i for i in range(8)], "long_factor": [1.0 + 0.9 * i for i in range(8)]}
    for original, longer in ((512, 1024), (16, 512)):
        directory = _directory(TinyModel("phi3"), tmp_path / str(original))
        plain = _transformers(directory)
        _edit_config(
            directory, dict.update, {"max_position_embeddings": longer, "original_max_position_embeddings": original}
        )
        _edit_config(
            directory, _new_rope, {"rope_type": "longrope", **factors, "original_max_position_embeddings": original}
        )
        scaled = _transformers(directory)
        assert kl(plain, scaled) > 1e-3
        assert kl(scaled, _llama_cpp(llama_cpp, _gguf(directory, tmp_path))) < 1e-10


def _directory(model: TinyModel, tmp_path: Path, dtype: str = "F32") -> Path:
    """The model's directory with a tokenizer, its numbers rounded to ``dtype``."""
    directory = tmp_path / "base"
    shutil.copytree(model.hf, directory)
    if dtype != "F32":
        weights = directory / "model.safetensors"
        rounded = {name: tensor.to(DTYPES[dtype]) for name, tensor in load_file(weights).items()}
        save_file(rounded, weights)
    return write_byte_level("gpt-2", directory, N_VOCAB)


def _gguf(directory: Path, tmp_path: Path) -> Path:
    """The directory as a GGUF without an adapter; its rules find nothing."""
    base = read_base_model(directory)
    adapter = read_adapter(tiny_adapter("plain", TinyModel("llama")))
    report = check_adapter(adapter, base, Deployment("model"))
    assert not [finding for finding in report.findings if "BM040" <= finding.code <= "BM049"]
    tensors = tuple(tensor.planned(tensor.name) for tensor in base_tensors(base))
    path = tmp_path / "plain.gguf"
    with path.open("wb") as file:
        write_gguf(PlannedFile("model", tensors, base_key_values(base, tensors)), file, lambda _: None)
    return path


def _tensors(gguf: Path) -> dict[str, tuple[str, Array]]:
    return {
        tensor.name: (tensor.tensor_type.name, dequantize(tensor.data, GGMLQuantizationType(tensor.tensor_type)))
        for tensor in GGUFReader(gguf).tensors
    }


def _transformers(directory: Path) -> Array:
    with torch.no_grad():
        logits: Array = load_base(directory)(torch.tensor(token_sequences())).logits.numpy()
    return logits


def _llama_cpp(llama_cpp: LlamaCpp, gguf: Path) -> Array:
    return np.stack(llama_cpp.logits(gguf, token_sequences()))
