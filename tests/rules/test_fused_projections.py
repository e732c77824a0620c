"""Phi 3 and 4 have q, k and v in one matrix, gate and up in another; unsloth's copies of them have them apart."""

from pathlib import Path

from tests.rules.specimens import FFN, HIDDEN, PREFIX, Specimen, codes, lora, write_huggingface


def test_an_adapter_of_the_copy_is_told_whose_it_is(specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_huggingface(tmp_path / "phi-4", model_type="phi3", tie_word_embeddings=False)
    specimen.tensors |= lora(f"{PREFIX}.model.layers.0.mlp.gate_proj", FFN, HIDDEN)
    specimen.write()
    report = specimen.report()
    assert "BM001" in codes(report)
    told = {finding.where: finding.message for finding in report.findings if finding.code == "BM001"}
    assert "has it within model.layers.0.self_attn.qkv_proj" in told["model.layers.0.self_attn.q_proj"]
    assert "has it within model.layers.0.mlp.gate_up_proj" in told["model.layers.0.mlp.gate_proj"]
    assert "unsloth's" in told["model.layers.1.self_attn.v_proj"]
