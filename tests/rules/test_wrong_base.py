"""Bases that look like another and are the adapter's own."""

import json
from pathlib import Path

import pytest

from converter.diagnostics import Deployment
from converter.fingerprint import RECORD_NAME
from converter.report.text import text_report
from tests.rules.bad.wrong_bases import COMMITS, give_magnitudes, record
from tests.rules.specimens import (
    EMBEDDING,
    RANK,
    VOCAB,
    Specimen,
    codes,
    embedding_lora,
    head_lora,
    tensor,
    transposed,
    write_gguf,
    write_huggingface,
)


@pytest.mark.parametrize("outtype", ["F32", "Q8_0"])
def test_the_recorded_base(outtype: str, specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_gguf(tmp_path / "base.gguf", outtype=outtype, seed=3)
    specimen.write()
    record(specimen, write_gguf(tmp_path / "trained.gguf", seed=3))
    report = specimen.report()
    assert codes(report) == []
    assert report.base_checked_by == (RECORD_NAME,)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"fingerprint": 3}', '{"fingerprint": "md5:0"}'])
def test_a_record_that_says_nothing(text: str, specimen: Specimen) -> None:
    specimen.write()
    (specimen.directory / RECORD_NAME).write_text(text, encoding="utf-8")
    report = specimen.report()
    assert codes(report) == []
    assert report.base_checked_by == ()
    assert "Base checked by: shapes alone" in text_report(report)


def test_a_record_can_not_be_compared_with_a_config_alone(specimen: Specimen, tmp_path: Path, bases: Path) -> None:
    specimen.base = write_huggingface(tmp_path / "base")
    specimen.write()
    record(specimen, bases / "tied.gguf")
    assert "BM007" in {skip.code for skip in specimen.report().skipped}


def test_a_record_of_a_base_whose_layers_are_repeated(specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_gguf(tmp_path / "base.gguf", seed=3)
    specimen.config["layer_replication"] = [[0, 2], [0, 2]]
    specimen.tensors |= {
        key.replace(f"layers.{i}.", f"layers.{i + 2}."): value
        for key, value in specimen.tensors.items()
        for i in (0, 1)
    }
    specimen.write()
    record(specimen, specimen.base)
    assert "BM007" not in codes(specimen.report(Deployment("model")))


@pytest.mark.parametrize("outtype", ["F32", "Q8_0"])
def test_magnitudes_of_the_base(outtype: str, specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_gguf(tmp_path / "base.gguf", seed=3, outtype=outtype)
    give_magnitudes(specimen, specimen.base)
    specimen.write()
    report = specimen.report()
    assert "BM008" not in codes(report)
    assert report.base_checked_by == ("DoRA's magnitudes",)


def test_a_tied_pair_on_the_untied_copy_of_its_base(specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_gguf(tmp_path / "base.gguf", tied=False, head=0.0)
    specimen.config["ensure_weight_tying"] = True
    specimen.tensors |= head_lora() | embedding_lora()
    specimen.write()
    assert codes(specimen.report()) == []


def test_two_ends_that_an_untied_base_trained_apart(untied: Specimen) -> None:
    untied.config["ensure_weight_tying"] = True
    untied.tensors |= head_lora() | embedding_lora()
    untied.tensors[f"{EMBEDDING}.lora_embedding_A"] = transposed(tensor(VOCAB, RANK, seed=1))
    untied.write()
    assert codes(untied.report()) == []


@pytest.mark.parametrize(
    ("revision", "folder"),
    [
        (COMMITS[0], f"models--me--mine/snapshots/{COMMITS[0]}"),
        ("main", f"models--me--mine/snapshots/{COMMITS[0]}"),
        (COMMITS[0], "models"),
        (None, f"models--me--mine/snapshots/{COMMITS[0]}"),
    ],
)
def test_no_other_revision(revision: str | None, folder: str, specimen: Specimen, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir(parents=True)
    specimen.base = write_gguf(tmp_path / folder / "model.gguf")
    specimen.config["revision"] = revision
    specimen.write()
    assert codes(specimen.report()) == []


@pytest.mark.parametrize(
    "name", ["LlamaForCausalLM", "MistralForCausalLM", "LlamaForSequenceClassification", "MyModel", "", 3]
)
def test_a_class_of_the_architecture_or_of_none(name: object, specimen: Specimen) -> None:
    specimen.config["auto_mapping"] = {"base_model_class": name}
    specimen.write()
    assert codes(specimen.report()) == []


@pytest.mark.parametrize("name", ["unsloth/Phi-3-mini-4k-instruct", "Llama-3-Qwen3-merge", "Mistral-7B", "gemma", ""])
def test_a_name_of_the_architecture_or_of_none(name: str, specimen: Specimen) -> None:
    """A name of two families is of none; gemma without a number is Gemma 1."""
    specimen.config["base_model_name_or_path"] = name
    specimen.write()
    assert codes(specimen.report()) == (["BM013"] if name == "gemma" else [])


def test_the_hub_caches_folder_names_the_base(specimen: Specimen, tmp_path: Path) -> None:
    base = tmp_path / "models--meta-llama--Llama-3.2-3B" / "snapshots" / COMMITS[0]
    base.mkdir(parents=True)
    specimen.base = write_gguf(base / "model.gguf")
    specimen.config["base_model_name_or_path"] = "meta-llama/Llama-3.2-1B"
    specimen.write()
    assert codes(specimen.report()) == ["BM006"]
    specimen.config["base_model_name_or_path"] = "meta-llama/Llama-3.2-3B"
    specimen.config_path.write_text(json.dumps(specimen.config), encoding="utf-8")
    assert codes(specimen.report()) == []
