"""Adapters on the two ends of every architecture of fixtures.more_models, in every deployment that its graph allows.

`make test` tries both ends of each, over its GGUF; `make variations` everything.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from converter.conversion import Refused, plan, write
from converter.derive.adapter import read_adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.derive.module_paths import EMBEDDING, HEAD
from converter.diagnostics import Deployment
from converter.verification.llama_cpp import LlamaCpp
from fixtures.measure import kl
from fixtures.more_ends import SEQUENCES, WAYS, ends
from fixtures.more_models import KINDS, N_VOCAB, NEVER_TIED, WANTING_A_HEAD, MoreModel
from fixtures.trained_tokenizers import write_byte_level

pytestmark = pytest.mark.llama

Array = npt.NDArray[np.float32]


UNTIED = (*WANTING_A_HEAD, *NEVER_TIED)


def _cases() -> Iterator[object]:
    for name in KINDS:
        can_be_tied = name not in UNTIED
        for way, (tied, *_) in WAYS.items():
            for of in ("gguf", "directory"):
                if (can_be_tied or not tied) and (of == "gguf" or not KINDS[name].gguf_only):
                    usual = "both ends of a tied base" if can_be_tied else "embedding and head"
                    base = "directory" if KINDS[name].directory_only else "gguf"
                    marks = [] if (way, of) == (usual, base) else [pytest.mark.thorough]
                    yield pytest.param(name, way, of, marks=marks, id=f"{name}-{way.replace(' ', '_')}-{of}")


@pytest.mark.parametrize(("name", "way", "of"), list(_cases()))
def test_its_ends_are_served_exactly(name: str, way: str, of: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    model, it = MoreModel(name, tied=WAYS[way].tied), ends(name, way)
    base = read_base_model(model.gguf if of == "gguf" else _directory(model, tmp_path))
    effect = kl(it.peft, it.base)
    assert effect > 1e-2
    for deployment in _deployments(way):
        if code := _refusal(base, way, deployment):
            with pytest.raises(Refused, match=f"[: ]{code}$"):
                plan(read_adapter(it.adapter), base, deployment)
            continue
        out = tmp_path / f"{deployment.to}-{deployment.untie}"
        write(plan(read_adapter(it.adapter), base, deployment), out)
        left = kl(it.peft, _served(model.gguf, out, deployment, llama_cpp))
        # The larger logits of a head with a delta carry what the base is off by further.
        assert left < max(model.kind.ratio * effect, 2 * model.kind.floor), deployment
        assert kl(it.peft, _logits(llama_cpp, model.gguf)) / effect > 0.5  # the control: the base alone


@pytest.mark.parametrize("name", [name for name in KINDS if name not in UNTIED])
def test_a_head_of_a_tied_base_is_not_merged_into_both(name: str) -> None:
    adapter, base = read_adapter(ends(name, "both ends of a tied base").adapter), MoreModel(name, tied=True).gguf
    for deployment in (Deployment("lora"), Deployment("model", outtype="f32")):
        with pytest.raises(Refused, match="HD001"):
            plan(adapter, read_base_model(base), deployment)


def _deployments(way: str) -> Iterator[Deployment]:
    """Of one base its own kind; of a tied one both that untie it, and the merge of a pair."""
    if WAYS[way].tied:
        yield Deployment("lora", untie=True)
        yield Deployment("model", untie=True, outtype="f32")
    else:
        yield Deployment("lora")
    if WAYS[way].as_pair or not WAYS[way].tied:
        yield Deployment("model", outtype="f32")


def _refusal(base: BaseModel, way: str, deployment: Deployment) -> str:
    """What refuses it: no file is what PEFT trained, or the graph takes no head, no LoRA on an end, or on its bias."""
    modules = [HEAD, EMBEDDING] if WAYS[way].on_embedding else [HEAD]
    graph = base.architecture.graph if base.architecture else None
    is_multiplied = base.architecture is not None and base.architecture.name == "falcon-h1"
    if is_multiplied and (base.format == "gguf" or base.tied):  # its ends are multiplied by two numbers
        return "BM049"
    if graph and graph.norms_embedding and WAYS[way].on_embedding:
        return "GG009"
    if graph and not graph.reads_output and not WAYS[way].as_pair:
        return "GG001"
    if deployment.to == "lora" and not all(place.lora for module in modules for place in base.places(module)):
        return "GG005"
    return "LO007" if deployment.to == "lora" and f"{HEAD}.bias" in base.tensors else ""


def _served(base: Path, out: Path, deployment: Deployment, llama_cpp: LlamaCpp) -> Array:
    if deployment.to == "model":
        return _logits(llama_cpp, out)
    if deployment.untie:
        return _logits(llama_cpp, out / "untied-base.gguf", out / "lora.gguf")
    return _logits(llama_cpp, base, out)


def _directory(model: MoreModel, tmp_path: Path) -> Path:
    directory = tmp_path / "base"
    shutil.copytree(model.hf, directory)
    return write_byte_level("gpt-2", directory, N_VOCAB)


def _logits(llama_cpp: LlamaCpp, gguf: Path, lora: Path | None = None) -> Array:
    return np.stack(llama_cpp.logits(gguf, SEQUENCES, lora))
