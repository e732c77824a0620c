"""Adapters that a wrapped model saved: PEFT serves nothing of them; under their plain names they are served exactly."""

from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

import converter
from converter import DeployedModel, Deployment, Refused
from fixtures.adapters import tiny_adapter
from fixtures.tiny import TinyModel

pytestmark = pytest.mark.llama

PREFIX = "base_model.model."
WRAPPED = {
    "compiled": lambda key: key.replace(PREFIX, f"{PREFIX}_orig_mod."),
    "DDP": lambda key: key.replace(PREFIX, f"{PREFIX}module."),
    "FSDP, each layer": lambda key: key.replace(".self_attn.", "._fsdp_wrapped_module.self_attn."),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_a_wrapped_models_adapter_is_served_under_its_plain_names(wrapper: str, tmp_path: Path) -> None:
    base, plain = TinyModel("llama"), tiny_adapter("plain", TinyModel("llama"))
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "adapter_config.json").write_bytes((plain / "adapter_config.json").read_bytes())
    tensors = {WRAPPED[wrapper](key): values for key, values in load_file(plain / "adapter_model.safetensors").items()}
    save_file(tensors, directory / "adapter_model.safetensors")
    model, as_model = tmp_path / "model.gguf", Deployment("model")
    with pytest.raises(Refused, match="LO004"):
        converter.convert(directory, model, base=base.gguf, deployment=as_model)
    adapter = converter.read_adapter(directory, rename_keys=True)
    converter.convert(adapter, model, base=base.gguf, deployment=as_model)
    assert converter.verify(adapter, base.hf, DeployedModel(model, base.gguf)).passed
    same = converter.convert(plain, tmp_path / "plain.gguf", base=base.gguf, deployment=as_model)[0].path
    assert converter.verify(adapter, base.hf, DeployedModel(same, base.gguf)).passed, "the same weights"
    assert not converter.verify(adapter, base.hf, DeployedModel(base.gguf, base.gguf)).passed, "the control: no adapter"
