"""The main job on real models: SmolLM2-135M and Gemma 3 270M, adapters with a trained head, real llama.cpp.

Effect ratios, as measured on real fine-tunes with a margin: F16 and F32 within 1e-4, BF16 within 0.005,
Q8_0 and quantised bases within 0.01, a LoRA on an untied bf16 base within 1e-3: ggml rounds activations to the
weights' type.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from converter.conversion import Refused, plan, write
from converter.derive.adapter import Adapter, read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import Deployment
from converter.read.gguf_header import read_gguf_header
from converter.verification.comparison import kl_divergence, log_softmax
from converter.verification.llama_cpp import LlamaCpp
from converter.verification.reference import Reference
from converter.verification.tensors import prove_model
from fixtures.real import GEMMA3, SMOLLM2, RealModel
from fixtures.train import TEXTS, trained_adapter

pytestmark = [pytest.mark.llama, pytest.mark.model]

N_TEXTS = 3
TO_MODEL = Deployment("model", untie=True)
TO_LORA = Deployment("lora", untie=True)


@dataclass(frozen=True)
class Job:
    """A real model's adapter, and what PEFT makes of it on one of its bases."""

    model: RealModel
    base: Path
    recipe: str
    sequences: Sequence[Sequence[int]]

    @cached_property
    def adapter(self) -> Adapter:
        return read_adapter(trained_adapter(self.recipe, self.model))

    @cached_property
    def reference(self) -> Reference:
        # The directory holds what the bf16 GGUF does, and is read in a tenth of the time.
        return Reference(self.model.hf if self.base == self.model.bf16_gguf else self.base, self.adapter)

    @cached_property
    def peft_logits(self) -> list[np.ndarray]:
        return [self.reference.logits(sequence) for sequence in self.sequences]

    @cached_property
    def effect(self) -> float:
        return _kl(self.peft_logits, [self.reference.base_logits(sequence) for sequence in self.sequences])

    def written(self, deployment: Deployment, output: Path) -> Path:
        base = read_base_model(self.base)
        write(plan(self.adapter, base, deployment), output)
        return output

    def ratio(self, llama_cpp: LlamaCpp, model: Path, lora: Path | None = None) -> float:
        return _kl(self.peft_logits, llama_cpp.logits(model, self.sequences, lora=lora)) / self.effect


def _kl(reference: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    # One row at a time: a vocabulary of 262,144 makes a megabyte and more of each.
    rows = ((p, q) for one, two in zip(reference, other, strict=True) for p, q in zip(one, two, strict=True))
    return float(np.mean([_kl_of_row(p, q) for p, q in rows]))


def _kl_of_row(p: np.ndarray, q: np.ndarray) -> float:
    log_p, log_q = (log_softmax(logits.astype(np.float64)[None]) for logits in (p, q))
    return float(kl_divergence(log_p, log_q)[0])


def _job(model: RealModel, base: Path, llama_cpp: LlamaCpp, recipe: str = "lm_head") -> Job:
    return Job(model, base, recipe, [llama_cpp.tokenize(model.packaged_gguf, text) for text in TEXTS[:N_TEXTS]])


@pytest.fixture(scope="module", params=[SMOLLM2, GEMMA3], ids=str)
def on_bf16(request: pytest.FixtureRequest, llama_cpp: LlamaCpp) -> Job:
    model: RealModel = request.param
    return _job(model, model.bf16_gguf, llama_cpp)


@pytest.fixture(scope="module", params=[SMOLLM2, GEMMA3], ids=str)
def on_packaged(request: pytest.FixtureRequest, llama_cpp: LlamaCpp) -> Job:
    """On the quantised GGUF as it is packaged; PEFT gets what it holds, dequantised."""
    model: RealModel = request.param
    return _job(model, model.packaged_gguf, llama_cpp)


@pytest.mark.parametrize(("outtype", "largest"), [("f32", 1e-4), ("f16", 1e-4), ("bf16", 5e-3), ("q8_0", 1e-2)])
def test_untied_and_merged(on_bf16: Job, outtype: str, largest: float, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    model = on_bf16.written(Deployment("model", untie=True, outtype=outtype), tmp_path / "model.gguf")
    assert on_bf16.effect > 1
    assert on_bf16.ratio(llama_cpp, model) <= largest
    if outtype == "f16":
        proof = prove_model(read_base_model(model), read_base_model(on_bf16.base), on_bf16.reference, lambda *_: None)
        assert not proof.faults


def test_untied_and_hot_swappable(on_bf16: Job, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    output = on_bf16.written(TO_LORA, tmp_path / "both")
    assert on_bf16.ratio(llama_cpp, output / "untied-base.gguf", output / "lora.gguf") <= 1e-3


def test_what_the_adapter_learned_is_generated(on_bf16: Job, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """The converted model writes what PEFT writes, word for word, and the base something else."""
    model = on_bf16.written(TO_MODEL, tmp_path / "model.gguf")
    prompt, n_tokens = TEXTS[5][:24], 12
    tokens = llama_cpp.tokenize(model, prompt)
    for _ in range(n_tokens):
        tokens = [*tokens, int(on_bf16.reference.logits(tokens)[-1].argmax())]
    learned = AutoTokenizer.from_pretrained(on_bf16.model.hf).decode(tokens[-n_tokens:])
    assert llama_cpp.generate(model, prompt, n_tokens) == learned
    assert llama_cpp.generate(on_bf16.base, prompt, n_tokens) != learned


def test_a_tied_base_refuses_what_parts_its_ends(on_bf16: Job, tmp_path: Path) -> None:
    for deployment in (Deployment("lora"), Deployment("model")):
        with pytest.raises(Refused, match="HD001"):
            on_bf16.written(deployment, tmp_path / "refused.gguf")
    assert not list(tmp_path.iterdir())


def test_a_quantised_base(on_packaged: Job, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    model = on_packaged.written(TO_MODEL, tmp_path / "model.gguf")
    assert read_base_model(model).shards[0].by_name["output.weight"].type.name == "Q8_0"
    assert on_packaged.ratio(llama_cpp, model) <= 1e-2


def test_a_tied_pair_is_added_once(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    job = _job(SMOLLM2, SMOLLM2.bf16_gguf, llama_cpp, "tied_pair")
    model = job.written(Deployment("model"), tmp_path / "model.gguf")
    assert "output.weight" not in read_base_model(model).shards[0].by_name
    assert job.ratio(llama_cpp, model) <= 1e-4


def test_the_untied_base_is_the_tied_one(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """The untied copy of the Q4_K_M Gemma 3 gives the same logits bit for bit."""
    job = _job(GEMMA3, GEMMA3.packaged_gguf, llama_cpp)
    output = job.written(TO_LORA, tmp_path / "both")
    tied, untied = (llama_cpp.logits(path, job.sequences) for path in (job.base, output / "untied-base.gguf"))
    for one, other in zip(tied, untied, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("spoilt", ["halved", "headless"])
def test_a_wrong_conversion_is_far_off(on_bf16: Job, spoilt: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """The control: half the scale, or no head, is beyond what the test of the right one allows.

    SmolLM2's head has a small part in its adapter's effect: without it the ratio is 0.006, with it 1.3e-4.
    """
    output = on_bf16.written(TO_LORA, tmp_path / "both")
    lora = output / "lora.gguf"
    data = bytearray(lora.read_bytes())
    if spoilt == "halved":
        at = data.index(b"adapter.lora.alpha") + len(b"adapter.lora.alpha") + 4
        data[at : at + 4] = np.float32(np.frombuffer(bytes(data[at : at + 4]), np.float32)[0] / 2).tobytes()
    else:
        head = read_gguf_header(lora).by_name["output.weight.lora_b"]
        data[head.offset : head.offset + head.nbytes] = bytes(head.nbytes)
    lora.write_bytes(data)
    assert on_bf16.ratio(llama_cpp, output / "untied-base.gguf", lora) > 3e-3
