"""The tensor proof of hosted models: right for each host, and each planted fault found in the tensor that has it."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from converter.conversion import plan
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import Deployment
from converter.errors import ConverterError
from converter.planning.conversion_plan import NewKeyValue, PlannedFile, PlannedTensor
from converter.sources import Filled, Merged, Piece, Placed, Product
from converter.verification.host_wants import HOST_KEY
from converter.verification.hosts import is_hosted, prove_hosted, prove_hosted_lora
from converter.verification.reference import Reference
from converter.verification.tensor_proof import TensorProof
from converter.writing.gguf_file import write_gguf
from fixtures.adapters import tiny_adapter
from fixtures.tiny import TinyModel

CASES = [("gemma", "gemma3"), ("gemma", "spark2_5"), ("gemma", "wide"), ("gemma2", "wide"), ("gemma2", "grok")]
Spoil = Callable[[PlannedTensor], PlannedTensor]


@cache
def reference_of(name: str, outtype: str, recipe: str) -> Reference:
    base = TinyModel(name, outtype=outtype)
    return Reference(base.hf, read_adapter(tiny_adapter(recipe, base)))


def planned(name: str, host: str, outtype: str = "F32", recipe: str = "lm_head", to: str = "model") -> PlannedFile:
    base = TinyModel(name, outtype=outtype)
    deployment = Deployment("lora" if to == "lora" else "model", True, None, host)
    files = plan(read_adapter(tiny_adapter(recipe, base)), read_base_model(base.gguf), deployment).files
    return files[-1]


def written(file: PlannedFile, path: Path) -> Path:
    with path.open("wb") as out:
        write_gguf(file, out, lambda _: None)
    return path


def proof_of(
    file: PlannedFile, directory: Path, name: str, outtype: str = "F32", recipe: str = "lm_head"
) -> TensorProof:
    model = read_base_model(written(file, directory / "model.gguf"))
    assert is_hosted(model)
    base = read_base_model(TinyModel(name, outtype=outtype).gguf)
    return prove_hosted(model, base, reference_of(name, outtype, recipe), lambda *_: None)


@pytest.mark.parametrize("outtype", ["F32", "BF16", "Q8_0"])
@pytest.mark.parametrize(("name", "host"), CASES)
def test_a_hosted_model_is_proven(name: str, host: str, outtype: str, tmp_path: Path) -> None:
    proof = proof_of(planned(name, host, outtype), tmp_path, name, outtype)
    assert not proof.faults
    assert proof.n_by("nothing") == 0


@pytest.mark.parametrize(("name", "host"), [*CASES, ("gemma2-heads", "grok")])
def test_both_ends_are_proven(name: str, host: str, tmp_path: Path) -> None:
    assert not proof_of(planned(name, host, recipe="embed_and_head"), tmp_path, name, recipe="embed_and_head").faults


def without_deltas(tensor: str) -> Spoil:
    def faded(piece: Piece) -> Piece:
        matrix = piece.matrix
        return piece._replace(matrix=matrix._replace(deltas=()) if isinstance(matrix, Merged) else matrix)

    def spoil(planned: PlannedTensor) -> PlannedTensor:
        match planned.source:
            case Merged() as source if planned.name == tensor:
                return planned._replace(source=source._replace(deltas=()))
            case Placed(_, pieces) as source if planned.name == tensor:
                return planned._replace(source=source._replace(pieces=tuple(map(faded, pieces))))
            case _:
                return planned

    return spoil


def scaled(tensor: str, factor: float) -> Spoil:
    def spoil(planned: PlannedTensor) -> PlannedTensor:
        if planned.name != tensor:
            return planned
        match planned.source:
            case Placed(_, pieces) as source:
                pieces = tuple(piece._replace(factor=piece.factor * factor) for piece in pieces)
                return planned._replace(source=source._replace(pieces=pieces))
            case Filled() as source:
                return planned._replace(source=source._replace(value=source.value * factor))
            case _:
                raise AssertionError(planned.source)

    return spoil


def without_products(tensor: str) -> Spoil:
    def spoil(planned: PlannedTensor) -> PlannedTensor:
        if planned.name != tensor or not isinstance(planned.source, Placed):
            return planned
        pieces = tuple(piece for piece in planned.source.pieces if not isinstance(piece.matrix, Product))
        return planned._replace(source=planned.source._replace(pieces=pieces))

    return spoil


def dropped(tensor: str) -> Spoil:
    return lambda planned: planned._replace(name="another.weight") if planned.name == tensor else planned


def faults() -> Iterator[tuple[str, str, Spoil, str]]:
    yield "gemma", "gemma3", without_deltas("output.weight"), "output.weight is off"
    yield "gemma", "gemma3", without_deltas("blk.1.attn_k.weight"), "blk.1.attn_k.weight is off"
    yield "gemma", "gemma3", scaled("token_embd.weight", 2.0), "token_embd.weight is off"
    yield "gemma", "gemma3", scaled("blk.2.attn_q_norm.weight", 1.001), "blk.2.attn_q_norm.weight is off"
    yield "gemma", "gemma3", dropped("blk.0.ffn_up.weight"), "blk.0.ffn_up.weight is missing"
    yield "gemma", "spark2_5", scaled("blk.0.attn_output.weight", 0.5), "blk.0.attn_output.weight is off"
    yield "gemma2", "grok", scaled("blk.0.ffn_down.weight", 0.5**0.5), "blk.0.ffn_down.weight is off"
    yield "gemma2", "grok", without_deltas("blk.0.attn_v.weight"), "blk.0.attn_v.weight is off"
    yield "gemma2", "wide", without_deltas("blk.3.attn_v.weight"), "blk.3.attn_v.weight is off"
    yield (
        "gemma2",
        "wide",
        without_products("blk.2.ffn_down.weight"),
        "blk.2.ffn_down.weight (shadow) differs from PEFT's",
    )
    yield (
        "gemma",
        "wide",
        without_products("blk.1.attn_output.weight"),
        "blk.1.attn_output.weight (shadow) differs from PEFT's",
    )
    yield "gemma", "wide", scaled("blk.0.ffn_norm.weight", 1.01), "token_embd.weight (lengths) differs from PEFT's"
    yield "gemma", "wide", scaled("output_norm.weight", 1.01), "output_norm.weight is off"


@pytest.mark.parametrize(("name", "host", "spoil", "fault"), list(faults()))
def test_a_planted_fault_is_found(name: str, host: str, spoil: Spoil, fault: str, tmp_path: Path) -> None:
    file = planned(name, host)
    spoilt = file._replace(tensors=tuple(map(spoil, file.tensors)))
    assert spoilt != file
    found = proof_of(spoilt, tmp_path, name).faults
    assert any(line.startswith(fault) for line in found), found


@pytest.mark.parametrize(("name", "host"), [("gemma", "gemma3"), ("gemma", "spark2_5"), ("gemma2", "grok")])
def test_a_lora_is_proven_with_its_untied_base(name: str, host: str, tmp_path: Path) -> None:
    base = TinyModel(name)
    adapter = read_adapter(tiny_adapter("embed_and_head", base))
    files = plan(adapter, read_base_model(base.gguf), Deployment("lora", True, None, host)).files
    model, lora = (written(file, tmp_path / file.name) for file in files)
    reference = reference_of(name, "F32", "embed_and_head")
    assert not prove_hosted_lora(lora, read_base_model(model), reference, lambda *_: None).faults
    less = files[1]._replace(tensors=files[1].tensors[2:])
    found = prove_hosted_lora(written(less, lora), read_base_model(model), reference, lambda *_: None).faults
    assert any("lacks a factor" in line for line in found)


def test_an_unknown_host_is_no_proof(tmp_path: Path) -> None:
    file = planned("gemma", "gemma3")
    other = (*(e for e in file.key_values if e.key != HOST_KEY), NewKeyValue(HOST_KEY, "another"))
    with pytest.raises(ConverterError, match="not known"):
        proof_of(file._replace(key_values=other), tmp_path, "gemma")
