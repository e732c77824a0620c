"""Adapters of PEFT's other methods, merged by PEFT itself: exact in real llama.cpp, or refused with a code."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from converter.checking import check_adapter
from converter.cli.to_gguf import main
from converter.conversion import plan, write
from converter.derive.adapter import read_adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.diagnostics import Deployment
from converter.planning.base_tensors import base_tensors
from converter.planning.conversion_plan import PlannedTensor
from converter.verification.llama_cpp import LlamaCpp
from converter.verification.verification import Case, DeployedModel, Verification, prove
from fixtures.adapters import saved_logits
from fixtures.measure import kl
from fixtures.peft_methods import METHODS, method_adapter
from fixtures.tiny import TinyModel, token_sequences

pytestmark = pytest.mark.llama

LARGEST_RATIO = 1e-4
BASES = ("llama", "qwen2", "gemma3")

# Refused for the merged model too; and where llama.cpp's graph has no such bias.
REFUSED = {
    **dict.fromkeys(("frod", "lily", "osf", "psoft", "prompt_tuning"), "CF005"),
    **dict.fromkeys(("pvera_sampling", "supertuning_without_indices"), "CF006"),
}


def convert(adapter: Path, base: TinyModel, output: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        main, [str(adapter), "--base", str(base.gguf), "-o", str(output), *options], catch_exceptions=False
    )
    return result.exit_code, result.stdout + result.stderr


@pytest.mark.parametrize(("name", "method"), list(product(BASES, METHODS)))
def test_a_merged_model_is_exact_or_refused(name: str, method: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    base = TinyModel(name)
    adapter, output = method_adapter(method, base), tmp_path / "model.gguf"
    code = "GG004" if method == "beft_mlp" and name != "llama" else REFUSED.get(method)
    options = ["--untie"] if method == "loha_and_saved_head" else ["--to", "model"]
    status, said = convert(adapter, base, output, *options)
    if code:
        assert (status, output.exists()) == (1, False)
        assert code in said
        assert code in shown_by_check(adapter, base)
    else:
        assert status == 0, said
        assert ratio(llama_cpp, adapter, output) <= LARGEST_RATIO
    assert not [path for path in tmp_path.iterdir() if path != output]


@pytest.mark.parametrize(
    ("name", "method"), [("llama", "loha"), ("qwen2", "ia3"), ("gemma3", "oft"), ("llama", "beft")]
)
def test_both_proofs_hold(name: str, method: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    base = TinyModel(name)
    assert convert(method_adapter(method, base), base, tmp_path / "model.gguf", "--to", "model")[0] == 0
    assert not list(verified(llama_cpp, base, method, tmp_path / "model.gguf").failures)


def test_one_module_that_was_not_merged_is_found_out(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """The control: one tensor is the base's."""
    base = TinyModel("llama")
    adapter, model = read_adapter(method_adapter("loha", base)), read_base_model(base.gguf)
    with plan(adapter, model, Deployment("model")) as conversion:
        tensors = tuple(as_in_the_base(tensor, model) for tensor in conversion.files[0].tensors)
        assert tensors != conversion.files[0].tensors
        spoilt = replace(conversion, files=(conversion.files[0]._replace(tensors=tensors),))
        write(spoilt, tmp_path / "model.gguf")
    assert verified(llama_cpp, base, "loha", tmp_path / "model.gguf").tensors.faults


def as_in_the_base(tensor: PlannedTensor, base: BaseModel) -> PlannedTensor:
    if tensor.name != "blk.1.attn_k.weight":
        return tensor
    return next(own for own in base_tensors(base) if own.name == tensor.name).planned(tensor.name)


def verified(llama_cpp: LlamaCpp, base: TinyModel, method: str, model: Path) -> Verification:
    deployed = DeployedModel(model, base.gguf)
    return prove(Case(read_adapter(method_adapter(method, base)), base.hf, deployed, token_sequences(2, 24)), llama_cpp)


def shown_by_check(adapter: Path, base: TinyModel) -> tuple[str, ...]:
    report = check_adapter(read_adapter(adapter), read_base_model(base.gguf), Deployment("model"))
    return report.blockers("model")


def ratio(llama_cpp: LlamaCpp, adapter: Path, model: Path) -> float:
    """KL(PEFT || deployed) / KL(PEFT || base), PEFT's logits as they were when the adapter was saved."""
    base_logits, peft_logits = saved_logits(adapter)
    served = np.stack(llama_cpp.logits(model, token_sequences()))
    return kl(peft_logits, served) / kl(peft_logits, base_logits)
