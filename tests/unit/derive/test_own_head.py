"""A config that says tied beside a checkpoint with two ends: what the checkpoint holds decides, by its bytes."""

from pathlib import Path

import pytest

from converter import Deployment, convert, plan, read_adapter, read_base
from fixtures.generated import Tensor, write_safetensors
from tests.rules.bad.checkpoints import on_checkpoint, weights
from tests.rules.specimens import HIDDEN, VOCAB, Specimen, base_embedding, head_lora, tensor
from tests.unit.conversion import values_of

HEAD = "lm_head.weight"


def one_byte_off(embedding: Tensor) -> Tensor:
    dtype, shape, data = embedding
    return dtype, shape, data[:-1] + bytes([data[-1] ^ 1])


def with_head(specimen: Specimen, head: Tensor | None) -> Path:
    base = on_checkpoint(specimen, tie_word_embeddings=True)
    write_safetensors(base / "model.safetensors", weights() | ({HEAD: head} if head else {}))
    return base


@pytest.mark.parametrize(
    ("head", "tied"),
    [
        (None, True),
        (base_embedding(), True),
        (one_byte_off(base_embedding()), False),
        (tensor(VOCAB, HIDDEN, seed=3), False),
    ],
    ids=["none", "the embedding", "one byte off", "another"],
)
def test_the_bytes_decide(head: Tensor | None, tied: bool, specimen: Specimen) -> None:
    assert read_base(with_head(specimen, head)).tied is tied


def test_a_head_of_its_own_is_in_the_model(specimen: Specimen, tmp_path: Path) -> None:
    base = with_head(specimen, tensor(VOCAB, HIDDEN, seed=3))
    convert(specimen.directory, tmp_path / "model.gguf", base=base, deployment=Deployment("model", outtype="f32"))
    head, embedding = (values_of(tmp_path / "model.gguf", f"{name}.weight") for name in ("output", "token_embd"))
    assert (head.shape, (head == embedding).all()) == ((VOCAB, HIDDEN), False)


def test_a_lora_on_it_is_no_lora_on_a_tied_head(specimen: Specimen) -> None:
    base = with_head(specimen, tensor(VOCAB, HIDDEN, seed=3))
    specimen.tensors |= head_lora()
    specimen.config["target_modules"] = ["q_proj", "v_proj", "down_proj", "lm_head"]
    specimen.write()
    plan(read_adapter(specimen.directory), read_base(base), Deployment("model"))
