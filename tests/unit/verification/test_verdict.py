import json
from dataclasses import replace
from math import inf, nan
from pathlib import Path

from converter.verification.comparison import LogitsComparison, QuantizedBase
from converter.verification.tensor_proof import TensorCheck, TensorProof
from converter.verification.thresholds import COARSE, EXACT
from converter.verification.verdict import verdict_data, verdict_text
from converter.verification.verification import DeployedModel, Verification
from tests.unit.schemas import faults

BASE = QuantizedBase(
    noise=0.02,
    kl=3.0,
    top1=0.5,
    perplexity_ratio=7.0,
    kl_of_deployed=1.9,
    top1_of_deployed=0.6,
    perplexity_ratio_of_deployed=0.25,
)
PROVEN = TensorProof((TensorCheck("token_embd.weight", "numbers", "F16", touched=True, error=0.9, kept=1.0),))
GOOD = LogitsComparison(300, 2.0, 2e-6, 1e-5, 3e-6, 1.0, 0.01, 1.0001, 1e-9)


def verification(
    comparison: LogitsComparison | None = GOOD, tensors: TensorProof = PROVEN, llama_cpp: str | None = None
) -> Verification:
    deployed = DeployedModel(Path("model.gguf"), None)
    return Verification(Path("my-adapter"), deployed, EXACT, tensors, comparison, llama_cpp)


def first_line(found: Verification) -> str:
    return verdict_text(found).splitlines()[0]


def test_the_first_line_is_the_verdict() -> None:
    wanted = "PASS  effect ratio 1e-06 (at most 0.0001 for F32 or F16 tensors): "
    assert first_line(verification()) == wanted + "model.gguf serves my-adapter as PEFT does"


def test_either_proof_alone_fails_it() -> None:
    wrong = LogitsComparison(300, 2.0, 1.0, 1.0, 1.0, 1.0, 0.01, 1.0, 1e-9)
    dropped = TensorProof((TensorCheck("blk.0.attn_q.weight", "numbers", fault="holds 0 of the delta"),))
    assert first_line(verification(wrong)).startswith("FAIL  effect ratio 0.5 ")
    assert first_line(verification(tensors=dropped)).startswith("FAIL  1 tensor at fault: ")
    assert "  - tensor proof: blk.0.attn_q.weight holds 0" in verdict_text(verification(tensors=dropped))


def test_too_little_effect_is_no_pass() -> None:
    feeble = LogitsComparison(300, 5e-7, 1e-12, 1e-12, 1e-12, 1.0, 0.01, 1.0, 1e-9)
    text = verdict_text(verification(feeble))
    assert text.startswith("FAIL  the adapter has too little effect on these texts: model.gguf is not proven to ")
    assert "too little effect to prove anything: KL(PEFT || base) is 5e-07" in text


def test_eight_bit_noise_gets_advice_and_no_pass() -> None:
    noisy = LogitsComparison(300, 0.45, 0.011, 0.2, 0.011, 1.0, 3.0, 1.0, 1e-4)
    coarse, exact = (replace(verification(noisy), threshold=threshold) for threshold in (COARSE, EXACT))
    assert verdict_text(coarse).startswith("FAIL")
    assert "which --prompts can give" in verdict_text(coarse)
    assert "which --prompts can give" not in verdict_text(exact)


def test_a_quantised_base_is_shown_in_effects_of_the_adapter_and_not_judged() -> None:
    found = verification(replace(GOOD, quantized_base=BASE))
    text, data = verdict_text(found), verdict_data(found)
    assert text.startswith("PASS")
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "effect ratio 1.5 KL(PEFT || quantised base) / effect" in rows
    assert any(row.startswith("effect of the file 0.95 KL(llama.cpp || quantised base) / effect") for row in rows)
    assert faults("verification", data) == []
    beside = data["logits"]["quantized_base"]  # type: ignore[index]  # a dict of objects
    assert (beside["effect_ratio"], beside["effect_of_deployed"], beside["top1"]) == (1.5, 0.95, 0.5)
    assert "quantised base" not in verdict_text(verification())


def test_an_abort_is_a_verdict_with_its_log() -> None:
    text = verdict_text(verification(None, llama_cpp="llama.cpp aborted the process (SIGABRT)\n  GGML_ASSERT(x)"))
    assert text.startswith("FAIL  llama.cpp can't run model.gguf with my-adapter\n")
    assert "GGML_ASSERT(x)" in text
    assert "effect ratio" not in text


def test_a_long_list_is_cut_and_says_so() -> None:
    many = TensorProof(tuple(TensorCheck(f"t{i}", "nothing", fault="is missing") for i in range(15)))
    text = verdict_text(verification(tensors=many))
    assert "t9 is missing" in text
    assert "t10 is missing" not in text
    assert "and 5 more" in text


def test_columns_are_aligned() -> None:
    table = verdict_text(verification()).split("\n\n")[1].splitlines()
    meaning = table[0].index("meaning")
    assert all(line[meaning - 2 : meaning] == "  " and line[meaning] != " " for line in table)


def test_data_is_json_whatever_the_numbers() -> None:
    broken = LogitsComparison(300, 0.0, inf, nan, inf, 1.0, nan, 1.0, None)
    data = json.loads(json.dumps(verdict_data(verification(broken)), allow_nan=False))
    assert faults("verification", data) == []
    assert faults("verification", {**data, "passed": "no"})
    assert data["status"] == 1
    assert data["passed"] is False
    assert data["logits"]["kl"] is None
    assert data["logits"]["effect_ratio"] is None
    assert data["tensors"][0]["tensor"] == "token_embd.weight"
