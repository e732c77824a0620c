"""What people train beyond plain LoRAs, on real Gemma 3 270M: DoRA with a head, rsLoRA, a saved head, new tokens.

Each is proven as `adapter-verify` does it. Each control changes one tensor of the converted file as a converter would
that skips a field or a tensor, and the tensor proof names just that one.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from converter.conversion import plan, write
from converter.derive.adapter import Adapter, read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import Deployment
from converter.read.gguf_header import GgufTensor, read_gguf_header
from converter.verification import verification
from converter.verification.gguf_weights import weights_in
from converter.verification.llama_cpp import LlamaCpp
from converter.verification.lora_pairs import prove_lora
from converter.verification.reference import Reference
from converter.verification.tensor_proof import TensorProof
from converter.verification.tensors import prove_model
from converter.verification.verification import Case, Deployed, DeployedLora, DeployedModel, prove
from fixtures.memory import run_measured
from fixtures.real import GEMMA3
from fixtures.train import CHAT_TEMPLATE, MARKS, RECIPES, TEXTS, TEXTS_WITH_NEW_TOKENS, WORDS, trained_adapter

pytestmark = [pytest.mark.llama, pytest.mark.model]

N_TEXTS = 2
N_WRITTEN = 8


@dataclass(frozen=True)
class Job:
    """An adapter, what it was converted to, and the one PEFT model that all of it is compared with."""

    recipe: str
    adapter: Adapter
    deployed: Deployed

    @cached_property
    def reference(self) -> Reference:
        return Reference(GEMMA3.hf, self.adapter)

    @cached_property
    def tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self.adapter.path if RECIPES[self.recipe].new_tokens else GEMMA3.hf)

    @property
    def texts(self) -> tuple[str, ...]:
        return (TEXTS_WITH_NEW_TOKENS if RECIPES[self.recipe].new_tokens else TEXTS)[:N_TEXTS]

    def tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text).input_ids)

    def tensor(self, name: str) -> GgufTensor:
        return read_gguf_header(self.deployed.file).by_name[name]

    def prove_tensors(self) -> TensorProof:
        model = read_base_model(self.deployed.model)
        if isinstance(self.deployed, DeployedLora):
            return prove_lora(self.deployed.lora, model, self.reference, lambda *_: None)
        return prove_model(model, read_base_model(GEMMA3.bf16_gguf), self.reference, lambda *_: None)


def _converted(recipe: str, deployment: Deployment, output: Path) -> Job:
    adapter, base = read_adapter(trained_adapter(recipe, GEMMA3)), read_base_model(GEMMA3.bf16_gguf)
    (written,) = write(plan(adapter, base, deployment), output)
    is_lora = deployment.to == "lora"
    return Job(
        recipe,
        adapter,
        DeployedLora(written.path, GEMMA3.bf16_gguf) if is_lora else DeployedModel(written.path, GEMMA3.bf16_gguf),
    )


# --- What a wrong converter would have written: the tensor, its first row, the rows -----------------------------------

Fault = tuple[str, int, np.ndarray]


def without_magnitudes(job: Job) -> Fault:
    """The weight before DoRA's rescaling."""
    module, every = "model.layers.3.mlp.up_proj", slice(None)
    rows = job.reference.base_weight(f"{module}.weight", every) + job.reference.delta(module, every)
    return "blk.3.ffn_up.weight", 0, rows


def without_square_root(job: Job) -> Fault:
    """The scale alpha / r, which is 1, in place of alpha / sqrt(r), which is 8; of one module."""
    factor = weights_in(read_gguf_header(job.deployed.file))["blk.3.ffn_up.weight.lora_b"]
    return factor.tensor.name, 0, factor.values(slice(0, factor.n_rows)) / 8


def without_saved_head(job: Job) -> Fault:
    """A few rows of the base's head, where the saved head's belong."""
    return "output.weight", 1000, job.reference.base_weight("lm_head.weight", slice(1000, 1010))


def without_one_new_row(job: Job) -> Fault:
    n_rows, n_columns = job.tensor("token_embd.weight").shape
    return "token_embd.weight", n_rows - 3, np.zeros((1, n_columns))


@dataclass(frozen=True, slots=True)
class Variation:
    deployment: Deployment
    fault: Callable[[Job], Fault]


TO_LORA, TO_MODEL = Deployment("lora"), Deployment("model", outtype="f16")
UNTIED = Deployment("model", untie=True, outtype="f16")
VARIATIONS: Mapping[str, Variation] = {
    "rslora": Variation(TO_LORA, without_square_root),
    "dora": Variation(UNTIED, without_magnitudes),
    "saved_lm_head": Variation(UNTIED, without_saved_head),
    "new_tokens": Variation(TO_MODEL, without_one_new_row),
}


@pytest.fixture(scope="module", params=VARIATIONS)
def job(request: pytest.FixtureRequest) -> Iterator[Job]:
    with tempfile.TemporaryDirectory() as directory:  # hundreds of megabytes, which pytest would keep
        yield _converted(request.param, VARIATIONS[request.param].deployment, Path(directory) / "converted.gguf")


def test_it_is_proven(job: Job, llama_cpp: LlamaCpp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "Reference", lambda *_: job.reference)  # loaded once, for all tests
    sequences = tuple(job.tokens(text) for text in job.texts)
    proof = prove(Case(job.adapter, GEMMA3.hf, job.deployed, sequences), llama_cpp)
    assert not list(proof.failures)
    assert proof.comparison is not None
    assert proof.comparison.effect > 1


def test_a_wrong_tensor_is_named(job: Job) -> None:
    name, first, rows = VARIATIONS[job.recipe].fault(job)
    with _written_over(job.deployed.file, job.tensor(name), first, rows):
        checks = job.prove_tensors().checks
    assert {check.tensor for check in checks if check.fault} == {name.removesuffix(".lora_b")}


@contextmanager
def _written_over(path: Path, tensor: GgufTensor, first: int, rows: np.ndarray) -> Iterator[None]:
    dtype = {"F32": np.float32, "F16": np.float16}[tensor.type.name]
    begin = tensor.offset + first * tensor.nbytes // tensor.shape[0]
    before = np.fromfile(path, dtype, rows.size, offset=begin)
    _write_at(path, begin, rows.astype(dtype))
    yield
    _write_at(path, begin, before)


def _write_at(path: Path, offset: int, values: np.ndarray) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(values.tobytes())


@pytest.mark.parametrize("job", ["new_tokens"], indirect=True)
def test_new_tokens_are_read_and_written(job: Job, llama_cpp: LlamaCpp) -> None:
    """Of a text with new tokens llama.cpp makes the adapter's ids, and goes on with new tokens as PEFT does."""
    for text in TEXTS_WITH_NEW_TOKENS:
        assert tuple(llama_cpp.tokenize(job.deployed.model, text, parse_special=True)) == job.tokens(text)
    prompt = TEXTS_WITH_NEW_TOKENS[0][:20]
    tokens = job.tokens(prompt)
    for _ in range(N_WRITTEN):
        tokens = (*tokens, int(job.reference.logits(tokens)[-1].argmax()))
    written = job.tokenizer.decode(tokens[-N_WRITTEN:], skip_special_tokens=True)
    assert llama_cpp.generate(job.deployed.model, prompt, N_WRITTEN) == written
    assert any(word in written for word in WORDS)


@pytest.mark.parametrize("job", ["new_tokens"], indirect=True)
def test_the_tokenizer_comes_along(job: Job) -> None:
    header, base = read_gguf_header(job.deployed.file), read_gguf_header(GEMMA3.bf16_gguf)
    assert header.kv["tokenizer.chat_template"] == CHAT_TEMPLATE
    (n_rows, *_), (n_before, *_) = (file.by_name["token_embd.weight"].shape for file in (header, base))
    assert n_rows == n_before + len(WORDS) + len(MARKS)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux tells what a process takes")
@pytest.mark.parametrize("job", ["dora"], indirect=True)
def test_the_proof_takes_at_most_3_gigabytes(job: Job, tmp_path: Path) -> None:
    """Of the whole process tree, llama.cpp included: the head alone has 671 MB in float32."""
    tokens = tmp_path / "tokens"
    tokens.write_text("\n".join(" ".join(map(str, job.tokens(text))) for text in job.texts))
    arguments = [job.adapter.path, "--base", GEMMA3.hf, "--base-gguf", GEMMA3.bf16_gguf, "--model", job.deployed.model]
    program = [sys.executable, "-c", "from converter.cli.verify import main; main()"]
    done, peak = run_measured([*program, *map(str, arguments), "--tokens", str(tokens)], os.environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert 0.5e9 < peak.total <= 3e9
