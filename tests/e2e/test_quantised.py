"""Models that are quantised from the merge, against llama.cpp's own llama_model_quantize of the merge in F32.

Tensor by tensor the same type and the same bytes, with an imatrix and without one.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from converter.conversion import plan, write
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import Deployment, Quantize
from converter.dtypes import F32
from converter.evaluation.compiled import NOTHING
from converter.planning.conversion_plan import ConversionPlan
from converter.planning.file_types import FILE_TYPES
from converter.verification.llama_cpp import LlamaCpp
from converter.writing import gguf_file
from fixtures.adapters import tiny_adapter
from fixtures.imatrix import DATASET, N_CHUNKS, random_sums, write_imatrix, write_old_imatrix
from fixtures.real import GEMMA3, SMOLLM2, RealModel
from fixtures.tiny import TinyModel
from fixtures.train import trained_adapter
from tests.e2e.llama_quantize import INSTALLED, Asked, Job, llama_quantize
from tests.kernels import require
from tests.unit.conversion import metadata_of, tensors_of

pytestmark = [
    pytest.mark.llama,
    # Only a compiler makes this oracle.
    pytest.mark.skipif(not INSTALLED, reason="needs llama-cpp-python: make .venv/llama-cpp-python compiles it"),
]

# Rows of whole K-quants; experts, whose rows are no whole ones; an untied head.
MODELS = {
    "gemma2-long": ("plain", Deployment("model")),
    "qwen3moe": ("plain", Deployment("model", untie=True)),
    "llama": ("lm_head", Deployment("model", untie=True)),
}
IMATRICES = ("none", "gguf", "old")
QUICK = [("gemma2-long", file_type, "none") for file_type in FILE_TYPES]
QUICK += [("gemma2-long", file_type, "gguf") for file_type in ("Q3_K_M", "Q4_K_M", "Q5_K_S", "IQ4_NL")]
QUICK += [("gemma2-long", "Q4_K_M", "old")]
QUICK += [("qwen3moe", file_type, "gguf") for file_type in ("MXFP4_MOE", "Q4_K_M", "IQ4_XS")]
REST = [case for case in product(MODELS, FILE_TYPES, IMATRICES) if case not in QUICK]
HOSTED = [("gemma-long", "gemma3"), ("gemma2-long", "wide")]
MORE_HOSTED = [("gemma-long", "spark2_5"), ("gemma-long", "wide"), ("gemma2-long", "grok")]
REAL_TYPES = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "IQ4_NL", "IQ4_XS")


def planned(base: Path, adapter: Path, deployment: Deployment) -> ConversionPlan:
    return plan(read_adapter(adapter), read_base_model(base), deployment)


def written(of: ConversionPlan, path: Path) -> Path:
    write(of, path)
    return path


def contents(path: Path) -> Mapping[str, tuple[str, bytes]]:
    return {name: (tensor.tensor_type.name, tensor.data.tobytes()) for name, tensor in tensors_of(path).items()}


def differences(ours: Path, theirs: Path) -> list[str]:
    """The tensors that differ in type or bytes, or that one of two files lacks."""
    mine, other = contents(ours), contents(theirs)
    return [name for name in {**mine, **other} if mine.get(name) != other.get(name)]


def imatrix_of(model: Path, kind: str) -> Path | None:
    write = {"gguf": write_imatrix, "old": write_old_imatrix}.get(kind)
    return write(model.with_suffix(f".imatrix-{kind}"), random_sums(model)) if write else None


@pytest.fixture(params=["plainly", "by kernels"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By libgguf, or by what is compiled."""
    if request.param == "by kernels":
        require()
    else:
        monkeypatch.setattr(gguf_file, "compiled", lambda: NOTHING)


@pytest.mark.usefixtures("how")
@pytest.mark.parametrize("cases", [QUICK, pytest.param(REST, marks=pytest.mark.thorough)], ids=["some", "others"])
def test_the_bytes_are_llama_quantizes_own(cases: list[tuple[str, str, str]], tmp_path: Path) -> None:
    jobs, ours = {}, {}
    for name in dict.fromkeys(name for name, _, _ in cases):
        (recipe, deployment), base = MODELS[name], TinyModel(name)
        adapter = tiny_adapter(recipe, base)
        merged = written(planned(base.gguf, adapter, replace(deployment, outtype="f32")), tmp_path / f"{name}.gguf")
        for case in (case for case in cases if case[0] == name):
            _, file_type, kind = case
            imatrix = imatrix_of(merged, kind)
            of = planned(base.gguf, adapter, replace(deployment, quantize=Quantize(file_type, imatrix, least_kept=0)))
            ours[case] = written(of, tmp_path / f"{'-'.join(case)}-ours.gguf")
            asked = Asked(file_type, str(imatrix) if imatrix else None)
            jobs[case] = Job(merged, tmp_path / f"{'-'.join(case)}-theirs.gguf", asked)
    llama_quantize(*jobs.values())
    assert {case: differences(ours[case], job.target) for case, job in jobs.items()} == {case: [] for case in jobs}


def test_each_option_is_llama_quantizes_own(tmp_path: Path) -> None:
    base = TinyModel("gemma2-long")
    adapter = tiny_adapter("plain", base)
    merged = written(planned(base.gguf, adapter, Deployment("model", outtype="f32")), tmp_path / "f32.gguf")
    overrides = (("attn_[qk]", "Q6_K"), ("blk.1.ffn", "F16"), ("ffn", "IQ4_XS"))
    asked = [
        Asked("Q4_K_M", tensor_types=overrides),
        Asked("Q4_K_M", embedding="Q4_0"),
        Asked("Q5_K_S", output="Q5_0"),
        Asked("Q3_K_M", tensor_types=(("token_embd", "Q8_0"), ("ffn_down", "BF16"))),
    ]
    jobs = [Job(merged, tmp_path / f"theirs-{i}.gguf", one) for i, one in enumerate(asked)]
    llama_quantize(*jobs)
    for job in jobs:
        one = job.asked
        quantize = Quantize(one.file_type, None, one.tensor_types, one.output, one.embedding, least_kept=0)
        ours = written(planned(base.gguf, adapter, Deployment("model", quantize=quantize)), tmp_path / "ours.gguf")
        assert differences(ours, job.target) == [], one


@pytest.mark.parametrize(
    ("name", "host"), [*HOSTED, *(pytest.param(*case, marks=pytest.mark.thorough) for case in MORE_HOSTED)]
)
def test_a_hosted_model_is_quantised_as_any_other(name: str, host: str, tmp_path: Path) -> None:
    """The merge is what the same plan writes in F32: --outtype f32 lays a wide host out otherwise."""
    base, embedding = TinyModel(name), "BF16" if host == "gemma3" else None
    deployment = Deployment("model", True, None, host, Quantize("Q4_K_M", least_kept=0))
    of = planned(base.gguf, tiny_adapter("lm_head", base), deployment)
    ours = written(of, tmp_path / "ours.gguf")
    in_f32 = [t._replace(type=F32) if t.quantised else t for t in of.files[0].tensors]
    merged = written(replace(of, files=(of.files[0]._replace(tensors=tuple(in_f32)),)), tmp_path / "f32.gguf")
    llama_quantize(Job(merged, tmp_path / "theirs.gguf", Asked("Q4_K_M", embedding=embedding)))
    assert differences(ours, tmp_path / "theirs.gguf") == []


def test_what_differs_is_seen(tmp_path: Path) -> None:
    """The control: another imatrix, none, and another type."""
    base = TinyModel("gemma2-long")
    adapter = tiny_adapter("plain", base)
    merged = written(planned(base.gguf, adapter, Deployment("model", outtype="f32")), tmp_path / "f32.gguf")
    right, other = (write_imatrix(tmp_path / f"{seed}.gguf", random_sums(merged, seed=seed)) for seed in (1, 2))
    llama_quantize(Job(merged, tmp_path / "theirs.gguf", Asked("Q4_K_M", str(right))))
    faults = (Quantize("Q4_K_M", other), Quantize("Q4_K_M"), Quantize("Q4_K_S", right))
    for fault in faults:
        of = planned(base.gguf, adapter, Deployment("model", quantize=fault._replace(least_kept=0)))
        assert "blk.0.attn_v.weight" in differences(written(of, tmp_path / "ours.gguf"), tmp_path / "theirs.gguf")


def test_metadata_are_llama_quantizes_own(tmp_path: Path) -> None:
    """llama-quantize's own program adds those of the imatrix, as its sources have it: tools/quantize/quantize.cpp."""
    base = TinyModel("llama")
    adapter = tiny_adapter("plain", base)
    merged = written(planned(base.gguf, adapter, Deployment("model", outtype="f32")), tmp_path / "f32.gguf")
    imatrix = write_imatrix(tmp_path / "i.gguf", random_sums(merged))
    llama_quantize(Job(merged, tmp_path / "theirs.gguf", Asked("Q5_K_M")))
    deployment = Deployment("model", quantize=Quantize("Q5_K_M", imatrix, least_kept=0))
    ours = metadata_of(written(planned(base.gguf, adapter, deployment), tmp_path / "ours.gguf"))
    theirs = metadata_of(tmp_path / "theirs.gguf")
    own = {key: value for key, value in ours.items() if not key.startswith(("adapter_to_gguf", "quantize."))}
    assert own == {key: value for key, value in theirs.items() if not key.startswith("adapter_to_gguf")}
    assert {key: ours[key] for key in ours if key.startswith("quantize.")} == {
        "quantize.imatrix.file": "i.gguf",
        "quantize.imatrix.dataset": DATASET,
        "quantize.imatrix.entries_count": len(random_sums(merged)),
        "quantize.imatrix.chunks_count": N_CHUNKS,
    }


class InF32(NamedTuple):
    """A real model, an adapter with a head of its own, and their merge in F32."""

    model: RealModel
    adapter: Path
    merged: Path


@pytest.fixture(scope="module")
def in_f32(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> InF32:
    model: RealModel = request.param
    adapter = trained_adapter("lm_head", model)
    of = planned(model.hf, adapter, Deployment("model", untie=True, outtype="f32"))
    return InF32(model, adapter, written(of, tmp_path_factory.mktemp(str(model)) / "f32.gguf"))


@pytest.mark.model
@pytest.mark.parametrize(
    ("in_f32", "file_type", "imatrix"),
    [
        pytest.param(*case, marks=[] if case == (SMOLLM2, "Q4_K_M", "none") else pytest.mark.thorough)
        for case in product((SMOLLM2, GEMMA3), REAL_TYPES, ("none", "gguf"))
    ],
    ids=str,
    indirect=["in_f32"],
)
def test_a_real_model_with_a_head_of_its_own(
    in_f32: InF32, file_type: str, imatrix: str, llama_cpp: LlamaCpp, tmp_path: Path
) -> None:
    model, adapter, merged = in_f32
    importance = imatrix_of(merged, imatrix)
    deployment = Deployment("model", untie=True, quantize=Quantize(file_type, importance, least_kept=0))
    ours, theirs = written(planned(model.hf, adapter, deployment), tmp_path / "ours.gguf"), tmp_path / "theirs.gguf"
    llama_quantize(Job(merged, theirs, Asked(file_type, str(importance) if importance else None)))
    assert differences(ours, theirs) == []
    assert len(llama_cpp.generate(ours, "Keeper's log, day 12. Fog from the", 8).split()) > 2
