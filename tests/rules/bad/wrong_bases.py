"""Adapters beside a base that fits, and is not theirs."""

import json
from pathlib import Path

from converter import Deployment, convert
from converter.derive.base_model import read_base_model
from converter.fingerprint import RECORD_NAME, fingerprint
from tests.rules.bad.registry import bad
from tests.rules.specimens import (
    Specimen,
    embedding_lora,
    head_lora,
    write_gguf,
)

COMMITS = ("1" * 40, "2" * 40)


def give_magnitudes(it: Specimen, of: Path) -> None:
    """Make the adapter a DoRA as its first step finds it: each magnitude is the norm of a row of `of`."""
    from converter.values.rows import read_rows

    base = read_base_model(of)
    it.config["use_dora"] = True
    for key in [key for key in it.tensors if key.endswith(".lora_A.weight")]:
        module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        stored = base.weight(module)
        assert stored is not None
        rows = read_rows(stored, 0, stored.shape[0])
        magnitudes = (rows**2).sum(axis=1) ** 0.5
        if module.endswith("q_proj"):  # GGUF's rows are interleaved, head by head
            magnitudes = magnitudes.reshape(4, -1, 2).swapaxes(1, 2).reshape(-1)
        it.tensors[key.replace("lora_A.weight", "lora_magnitude_vector")] = (
            "F32",
            magnitudes.shape,
            magnitudes.astype("<f4").tobytes(),
        )


def record(it: Specimen, of: Path) -> None:
    """Write what a training run notes down of its base."""
    noted = {"fingerprint": fingerprint(read_base_model(of)), "of": "the/base"}
    (it.directory / RECORD_NAME).write_text(json.dumps(noted), encoding="utf-8")


@bad("BM006")
def a_base_of_another_size(it: Specimen, _: Path) -> None:
    it.config["base_model_name_or_path"] = "meta-llama/Llama-2-7b"
    it.base = write_gguf(it.directory.with_name("base.gguf"), name="13b Chat")
    it.write()


@bad("BM006")
def a_base_of_another_family(it: Specimen, _: Path) -> None:
    it.config["base_model_name_or_path"] = "HuggingFaceTB/SmolLM2-360M"
    it.base = write_gguf(it.directory.with_name("base.gguf"), name="Llama 3.2")
    it.write()


@bad("BM006")
def a_base_of_another_generation(it: Specimen, _: Path) -> None:
    it.config["base_model_name_or_path"] = "meta-llama/Meta-Llama-3-8B"
    it.base = write_gguf(it.directory.with_name("base.gguf"), name="Meta Llama 3.1 8B")
    it.write()


@bad("BM006")
def the_instructed_base(it: Specimen, _: Path) -> None:
    it.config["base_model_name_or_path"] = "meta-llama/Llama-3.2-1B"
    it.base = write_gguf(it.directory.with_name("base.gguf"), name="Llama 3.2 1B Instruct")
    it.write()


@bad("BM013")
def a_family_of_another_architecture(it: Specimen, _: Path) -> None:
    it.config["base_model_name_or_path"] = "google/gemma-2-2b"
    it.write()


@bad("BM013")
def a_number_behind_the_family(it: Specimen, bases: Path) -> None:
    it.config["base_model_name_or_path"] = "google/gemma-2-2b"
    it.base = bases / "gemma.gguf"
    it.write()


@bad("BM007")
def another_base_was_recorded(it: Specimen, _: Path) -> None:
    it.write()
    record(it, write_gguf(it.directory.with_name("other.gguf"), seed=3))


@bad("BM008", "LO011")  # a DoRA is no LoRA file
def magnitudes_of_another_base(it: Specimen, _: Path) -> None:
    give_magnitudes(it, of=write_gguf(it.directory.with_name("other.gguf"), seed=3))
    it.base = write_gguf(it.directory.with_name("base.gguf"), seed=4)
    it.write()


@bad("BM009")
def a_class_of_another_architecture(it: Specimen, _: Path) -> None:
    it.config["auto_mapping"] = {
        "base_model_class": "Qwen2ForCausalLM",
        "parent_library": "transformers.models.qwen2.modeling_qwen2",
    }
    it.write()


@bad("BM010")
def a_tied_pair_on_an_untied_base(it: Specimen, bases: Path) -> None:
    it.base = bases / "untied.gguf"
    it.config["ensure_weight_tying"] = True
    it.tensors |= head_lora() | embedding_lora()
    it.write()


@bad("BM011")
def another_revision(it: Specimen, _: Path) -> None:
    it.config["revision"] = COMMITS[0]
    snapshot = it.directory.with_name("hub") / "models--me--mine" / "snapshots" / COMMITS[1]
    snapshot.mkdir(parents=True)
    it.base = write_gguf(snapshot / "model.gguf")
    it.write()


@bad("BM012", "NM006")  # its weights are small beside the deltas
def a_base_that_holds_the_adapter(it: Specimen, bases: Path) -> None:
    it.base = bases / "tied.gguf"
    it.write()
    model = it.directory.with_name("model.gguf")
    convert(it.directory, model, base=it.base, deployment=Deployment("model"))
    it.base = model


@bad("BM012")
def a_base_that_holds_the_adapter_below_another(it: Specimen, bases: Path) -> None:
    a_base_that_holds_the_adapter(it, bases)
    once, twice = it.base, it.directory.with_name("twice.gguf")
    it.config["r_comment"] = ""  # another adapter, by its digest
    it.write()
    convert(it.directory, twice, base=once, deployment=Deployment("model"))
    del it.config["r_comment"]
    it.write()
    it.base = twice
