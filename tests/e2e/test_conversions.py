"""Types of the touched tensors, written and proven in real llama.cpp.

What becomes of each variation of PEFT on each architecture is the table of tests/variations.
"""

from pathlib import Path

import numpy as np
import pytest

from converter.conversion import plan, write
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import Deployment
from converter.verification.llama_cpp import LlamaCpp, LlamaCppFailed
from converter.verification.verification import Case, DeployedModel, prove
from fixtures.adapters import tiny_adapter
from fixtures.tiny import TinyModel, token_sequences

pytestmark = pytest.mark.llama

# Base's type, --outtype, the type of the touched tensors.
TYPES = [
    ("F16", "auto", "F16"),
    ("BF16", "auto", "F16"),
    ("BF16", "as-base", "BF16"),
    ("BF16", "f32", "F32"),
    ("Q8_0", "auto", "Q8_0"),
    ("Q8_0", "f16", "F16"),
    ("F32", "bf16", "BF16"),
    ("F32", "q8_0", "Q8_0"),
]


@pytest.mark.parametrize(("base_type", "outtype", "written"), TYPES)
def test_every_type_is_what_was_asked_and_proven(
    base_type: str, outtype: str, written: str, llama_cpp: LlamaCpp, tmp_path: Path
) -> None:
    base = TinyModel("llama", outtype=base_type)
    adapter, model = read_adapter(tiny_adapter("lm_head", base)), read_base_model(base.gguf)
    conversion = plan(adapter, model, Deployment("model", untie=True, outtype=outtype))
    (file,) = write(conversion, tmp_path / "model")
    assert read_base_model(file.path).shards[0].by_name["output.weight"].type.name == written
    proof = prove(Case(adapter, base.hf, DeployedModel(file.path, base.gguf), token_sequences(2, 24)), llama_cpp)
    assert not proof.tensors.faults
    assert proof.comparison is not None
    # The tensors are proven to their rounding; the logits of a tiny model feel that rounding ten times as much as a
    # real model's, so they are only held to it being small.
    assert proof.comparison.effect_ratio <= 0.02


def test_a_model_in_shards_is_the_model(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """llama.cpp finds the others beside the first; without one of them it is nothing. The proof takes the first too."""
    base = TinyModel("llama", outtype="BF16")
    adapter, model = read_adapter(tiny_adapter("lm_head", base)), read_base_model(base.gguf)
    conversion = plan(adapter, model, Deployment("model", untie=True))
    (single,) = write(conversion, tmp_path / "single.gguf")
    (split,) = write(conversion, tmp_path / "model.gguf", split_max_size=100_000)
    assert len(split.shards) > 2
    sequences = token_sequences(2, 24)
    pairs = zip(llama_cpp.logits(split.path, sequences), llama_cpp.logits(single.path, sequences), strict=True)
    for found, wanted in pairs:
        np.testing.assert_array_equal(found, wanted)
    proof = prove(Case(adapter, base.hf, DeployedModel(split.path, base.gguf), sequences), llama_cpp)
    assert not proof.tensors.faults
    assert proof.comparison is not None
    assert proof.comparison.effect_ratio <= 0.02
    llama_cpp.release()
    split.shards[1].unlink()
    with pytest.raises(LlamaCppFailed):
        llama_cpp.logits(split.path, sequences)
