"""Bases that a quantiser of PyTorch's packed: config.json is enough for a LoRA file, their numbers are for nothing."""

from pathlib import Path

import pytest

from converter.conversion import plan
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.derive.model_names import original_name
from fixtures.generated import Tensor, write_safetensors
from tests.rules.specimens import (
    HIDDEN,
    RANK,
    UP,
    VOCAB,
    Specimen,
    codes,
    lora,
    open_for,
    tensor,
    write_huggingface,
)

SETTINGS = {"quant_method": "bitsandbytes", "load_in_4bit": True}


def packed(directory: Path) -> Path:
    """As bitsandbytes writes it: bytes in the place of matrices, their scales beside them, vectors as they were."""
    base = write_huggingface(directory, quantization_config=SETTINGS)
    name = "model.layers.0.mlp.down_proj.weight"
    byte: Tensor = ("U8", (HIDDEN * 96 // 2, 1), bytes(HIDDEN * 96 // 2))
    tensors = {
        "model.embed_tokens.weight": tensor(VOCAB, HIDDEN),
        "model.norm.weight": tensor(HIDDEN),
        name: byte,
        f"{name}.absmax": tensor(HIDDEN),
    }
    write_safetensors(base / "model.safetensors", tensors)
    return base


def test_a_lora_file_needs_only_the_shapes_that_its_config_tells(specimen: Specimen) -> None:
    specimen.base = packed(specimen.directory.with_name("tiny-unsloth-bnb-4bit"))
    specimen.write()
    report = specimen.report()
    (finding,) = report.findings
    assert open_for(report) == {"lora"}
    assert finding.code == "BM004"
    assert "wanted the original weights (tiny, by its name) or a GGUF" in finding.message
    files = plan(read_adapter(specimen.directory), read_base_model(specimen.base)).files
    right = plan(read_adapter(specimen.directory), read_base_model(write_huggingface(specimen.base.with_name("base"))))
    assert files == right.files


@pytest.mark.parametrize(("shape", "code"), [((HIDDEN, 2 * 96), "BM002"), ((HIDDEN + 2, 96), "BM002")])
def test_what_does_not_fit_is_told_by_the_config(shape: tuple[int, int], code: str, specimen: Specimen) -> None:
    specimen.base = packed(specimen.directory.with_name("base"))
    specimen.tensors |= lora(UP, *shape)
    specimen.write()
    assert codes(specimen.report()) == [code, "BM004"]


def test_what_is_computed_from_the_bases_numbers_is_refused(specimen: Specimen) -> None:
    specimen.base = packed(specimen.directory.with_name("base"))
    specimen.config["init_lora_weights"] = "pissa"
    specimen.write()
    assert "lora" not in open_for(specimen.report())
    specimen.config = {"peft_type": "LOHA", "target_modules": ["down_proj"], "r": RANK}
    specimen.tensors = {f"{UP}.hada_w1_a": tensor(HIDDEN, RANK)}
    specimen.write()
    assert "lora" not in open_for(specimen.report())


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("unsloth/Llama-3.2-1B-Instruct-bnb-4bit", "Llama-3.2-1B-Instruct"),
        ("unsloth/Llama-3.2-1B-unsloth-bnb-4bit", "Llama-3.2-1B"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "Qwen2.5-7B-Instruct"),
        ("someone/Mistral-7B-v0.1-AWQ", "Mistral-7B-v0.1"),
        ("RedHatAI/gemma-3-1b-it-FP8-dynamic", "gemma-3-1b-it"),
        ("mlx-community/Llama-3.2-1B-Instruct-4bit", "Llama-3.2-1B-Instruct"),
        ("google/gemma-2b", None),
    ],
)
def test_the_name_of_the_original(name: str, original: str | None) -> None:
    assert original_name(name) == original
