"""Keys of wrapped models and of other trainers: told what they are, and renamed only where that is asked for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from converter.checking import check_adapter
from converter.conversion import plan
from converter.derive.adapter import read_adapter, with_renamed_keys
from converter.derive.adapter_keys import foreign_key
from converter.derive.base_model import read_base_model
from converter.diagnostics import Deployment, Report
from converter.library import read_adapter as read_by_library
from converter.read.adapter_config import AdapterConfig
from tests.rules.specimens import HEAD, PREFIX, Specimen, codes, head_lora, lora, tensor

Rename = Callable[[str], str]
WRAPPED: dict[str, Rename] = {
    "_orig_mod": lambda key: f"_orig_mod.{key}",
    "_orig_mod inside": lambda key: key.replace(f"{PREFIX}.", f"{PREFIX}._orig_mod."),
    "_orig_mod of a layer": lambda key: key.replace(".self_attn.", "._orig_mod.self_attn."),
    "module": lambda key: f"module.{key}",
    "module inside": lambda key: key.replace(f"{PREFIX}.", f"{PREFIX}.module."),
    "_checkpoint_wrapped_module": lambda key: key.replace(".mlp.", "._checkpoint_wrapped_module.mlp."),
    "_fsdp_wrapped_module": lambda key: f"_fsdp_wrapped_module.{key}",
    "_fsdp_wrapped_module of a layer": lambda key: key.replace(".self_attn.", "._fsdp_wrapped_module.self_attn."),
    "thinker": lambda key: f"thinker.{key}",
    "AutoModel": lambda key: key.replace(f"{PREFIX}.model.", f"{PREFIX}."),
    "lacks": lambda key: key.removeprefix(f"{PREFIX}."),
    "my_adapter": lambda key: key.replace(".weight", ".my_adapter.weight"),
    "my-adapter": lambda key: key.replace(".weight", ".my-adapter.weight"),
}


def rename(it: Specimen, how: Rename) -> None:
    it.tensors = {how(key): value for key, value in it.tensors.items()}
    it.write()


def renamed_report(it: Specimen) -> Report:
    adapter = with_renamed_keys(read_adapter(it.directory))
    return check_adapter(adapter, read_base_model(it.base) if it.base else None, Deployment(), values=True)


@pytest.mark.parametrize("with_base", [True, False])
@pytest.mark.parametrize(("name", "how"), WRAPPED.items(), ids=WRAPPED)
def test_a_wrapped_models_keys_are_refused_by_name(name: str, how: Rename, with_base: bool, specimen: Specimen) -> None:
    specimen.base = specimen.base if with_base else None
    rename(specimen, how)
    report = specimen.report()
    told = [finding.message for finding in report.findings if finding.code == "LO004"]
    assert not report.passed
    assert "BM001" not in codes(report)
    assert told
    assert all(name.partition(" ")[0] in message and "PEFT loads nothing of it" in message for message in told)


@pytest.mark.parametrize("how", WRAPPED.values(), ids=WRAPPED)
def test_renamed_they_make_the_same_plan(how: Rename, specimen: Specimen) -> None:
    specimen.write()
    base = read_base_model(specimen.base) if specimen.base else None
    assert base
    right = plan(read_adapter(specimen.directory), base)
    rename(specimen, how)
    assert codes(renamed_report(specimen)) == []
    planned = plan(read_by_library(specimen.directory, rename_keys=True), base)
    assert [(t.name, t.shape, t.type) for t in planned.files[0].tensors] == [
        (t.name, t.shape, t.type) for t in right.files[0].tensors
    ]
    before = {line.key: line.how for line in right.ledger}
    for line in planned.ledger:
        if line.kind == "tensor" and line.key not in before:
            assert line.how.startswith(f"read as {PREFIX}.model.")
    assert {how(key) for key in before if key.startswith(PREFIX)} <= {line.key for line in planned.ledger}


def test_tinkers_head_is_the_head(specimen: Specimen) -> None:
    specimen.tensors |= head_lora()
    specimen.config["target_modules"] = "all-linear"
    rename(specimen, lambda key: key.replace(HEAD, f"{PREFIX}.model.unembed_tokens"))
    assert "LO004" in codes(specimen.report())
    assert "HD001" in codes(renamed_report(specimen))
    assert "CF015" not in codes(renamed_report(specimen))


OTHERS = {
    "torchtune's": "layers.0.attn.q_proj.lora_a.weight",
    "MLX's": "model.layers.0.self_attn.q_proj.lora_a",
    "kohya's": "lora_unet_down_blocks_0_attentions_0.lora_down.weight",
    "mistral-finetune's": "layers.0.attention.wq.lora_A.weight",
    "Megatron's": "decoder.layers.0.self_attention.linear_qkv.adapter.linear_in.weight",
}


@pytest.mark.parametrize(("name", "key"), OTHERS.items(), ids=OTHERS)
def test_another_trainers_key_is_told_and_never_renamed(name: str, key: str, specimen: Specimen) -> None:
    specimen.tensors[key] = next(iter(specimen.tensors.values()))
    specimen.write()
    for report in (specimen.report(), renamed_report(specimen)):
        (told,) = (finding.message for finding in report.findings if finding.code == "LO004")
        assert told.startswith(f"is {name}")


def test_two_keys_of_one_name_are_one_too_many(specimen: Specimen) -> None:
    specimen.tensors |= {f"_orig_mod.{key}": value for key, value in specimen.tensors.items()}
    specimen.write()
    assert "LO003" in codes(renamed_report(specimen))


def test_a_right_adapter_is_not_renamed(specimen: Specimen) -> None:
    specimen.tensors |= lora(f"{PREFIX}.model.layers.0.mlp.module", 8, 8)
    specimen.write()
    adapter = read_adapter(specimen.directory)
    assert with_renamed_keys(adapter) == replace(adapter)


BARE_MODELS: list[dict[str, object]] = [
    {"task_type": "FEATURE_EXTRACTION"},
    {"task_type": None, "auto_mapping": {"base_model_class": "LlamaModel", "parent_library": "transformers.models.x"}},
]


@pytest.mark.parametrize("says", BARE_MODELS, ids=["task", "class"])
def test_a_bare_models_keys_are_pefts_own_where_the_config_says_so(says: dict[str, object], specimen: Specimen) -> None:
    specimen.tensors[f"{PREFIX}.model.norm.weight"] = tensor(32)
    specimen.config |= {**says, "modules_to_save": ["norm"], "rank_pattern": {"layers.0.mlp.down_proj": 4}}
    rename(specimen, WRAPPED["AutoModel"])
    base = read_base_model(specimen.base) if specimen.base else None
    report = check_adapter(read_adapter(specimen.directory), base, Deployment("model"), values=True)
    assert codes(report) == ["LO007"]  # of a LoRA file
    assert base
    planned = plan(read_adapter(specimen.directory), base, Deployment("model"))
    assert {line.key for line in planned.ledger if line.kind == "tensor"} == set(specimen.tensors)
    assert not any(line.how.startswith("read as") for line in planned.ledger)


def test_another_wrapper_of_a_bare_model_is_refused_all_the_same(specimen: Specimen) -> None:
    specimen.config["task_type"] = "FEATURE_EXTRACTION"
    rename(specimen, lambda key: WRAPPED["_orig_mod"](WRAPPED["AutoModel"](key)))
    assert "LO004" in codes(specimen.report())


def test_gpt2s_whole_model_is_no_bare_one() -> None:
    config = AdapterConfig(Path(), {"auto_mapping": {"base_model_class": "GPT2LMHeadModel"}})
    assert foreign_key(f"{PREFIX}.layers.0.mlp.up_proj.lora_A.weight", config)


def test_a_prefix_that_stands_twice_names_the_same_module(specimen: Specimen) -> None:
    """As a model that was wrapped twice saves it (llama.cpp's issue 4406)."""
    rename(specimen, lambda key: f"{PREFIX}.{key}")
    assert codes(specimen.report()) == []
    assert [tensor.read_as for tensor in read_adapter(specimen.directory).tensors] == [None] * len(specimen.tensors)
