"""The ledger against the written numbers: what it calls applied moves the tensors it names, and nothing else does."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converter.diagnostics import Deployment
from fixtures.generated import Tensor
from tests.rules.specimens import EMBEDDING, HIDDEN, N_LAYER, PREFIX, SHAPES, Specimen, head_lora, tensor, write_gguf
from tests.unit.conversion import LORA, MODEL, UNTIED_MODEL, convert, tensors_of

LINEARS = {f"{PREFIX}.model.layers.{i}.{name}": shape for i in range(N_LAYER) for name, shape in SHAPES.items()}


def plain(_: Specimen) -> None:
    """LoRA alone."""


def folded(it: Specimen) -> None:
    it.config["alpha_pattern"] = {"q_proj": 3}


def dora(it: Specimen) -> None:
    it.config["use_dora"] = True
    it.tensors |= {f"{name}.lora_magnitude_vector": tensor(shape[0], seed=1) for name, shape in LINEARS.items()}


def biases(it: Specimen) -> None:
    it.config["lora_bias"] = True
    it.tensors |= {f"{name}.lora_B.bias": tensor(shape[0], seed=2) for name, shape in LINEARS.items()}


def trained_biases(it: Specimen) -> None:
    it.config["bias"] = "lora_only"
    it.tensors |= {f"{name}.base_layer.bias": tensor(shape[0], seed=3) for name, shape in LINEARS.items()}


def saved_norm(it: Specimen) -> None:
    it.config["modules_to_save"] = ["norm"]
    it.tensors |= {f"{PREFIX}.model.norm.weight": tensor(HIDDEN, seed=4)}


def token_rows(it: Specimen) -> None:
    it.config["trainable_token_indices"] = [3, 7]
    it.tensors[f"{EMBEDDING}.token_adapter.trainable_tokens_delta"] = tensor(2, HIDDEN, seed=5)


def head(it: Specimen) -> None:
    it.tensors |= head_lora()


PARTS: list[tuple[Callable[[Specimen], None], Deployment]] = [
    (plain, LORA),
    (plain, MODEL),
    (folded, LORA),
    (dora, MODEL),
    (biases, MODEL),
    (trained_biases, MODEL),
    (saved_norm, MODEL),
    (token_rows, MODEL),
    (token_rows, UNTIED_MODEL),
    (head, UNTIED_MODEL),
]


@pytest.mark.parametrize(("part", "deployment"), PARTS, ids=[f"{p.__name__}-{d.kind}" for p, d in PARTS])
def test_what_is_applied_is_in_the_tensors_it_names(
    part: Callable[[Specimen], None], deployment: Deployment, tmp_path: Path
) -> None:
    it = Specimen(tmp_path / "adapter", write_gguf(tmp_path / "base.gguf"))
    part(it)
    ledger = convert(it, tmp_path / "before.gguf", deployment).plan.ledger
    told = {line.key: set(re.split(" and |, ", line.how)) for line in ledger if line.kind == "tensor"}
    before, good = tensors_of(tmp_path / "before.gguf"), dict(it.tensors)
    assert told.keys() == good.keys()
    for key, stored in good.items():
        it.tensors = good | {key: moved(*stored)}
        convert(it, tmp_path / "after.gguf", deployment)
        after = tensors_of(tmp_path / "after.gguf")
        changed = {name for name, t in after.items() if not np.array_equal(t.data, before[name].data)}
        assert changed == told[key], key


def moved(dtype: str, shape: tuple[int, ...], data: bytes) -> Tensor:
    """Other numbers, by no common factor, which DoRA would divide out again."""
    values = np.frombuffer(data, "<f4")
    return dtype, shape, (values * np.linspace(1.1, 1.4, values.size)).astype("<f4").tobytes()
