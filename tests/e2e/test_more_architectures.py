"""Every architecture of fixtures.more_models, from end to end in real llama.cpp.

A GGUF made of its directory is the tests' own GGUF, tensor by tensor, and computes what transformers computes; a PEFT
adapter on all its linear layers is applied exactly, as a LoRA file and merged, over either base.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from converter.checking import check_adapter
from converter.conversion import Refused, plan, write
from converter.derive.adapter import Adapter, read_adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.diagnostics import Deployment, Kind
from converter.fingerprint import fingerprint
from converter.planning.base_tensors import base_tensors
from converter.planning.conversion_plan import PlannedFile
from converter.planning.metadata import base_key_values
from converter.verification.llama_cpp import LlamaCpp, LlamaCppFailed
from converter.verification.reference import Reference
from converter.verification.tensors import prove_model
from converter.verification.verification import Case, DeployedModel, prove
from converter.writing.gguf_file import write_gguf
from fixtures.mapped_gguf import without_head
from fixtures.measure import kl, tensors
from fixtures.more_adapters import SEQUENCES, more_adapter, more_logits
from fixtures.more_models import KINDS, N_VOCAB, WANTING_A_HEAD, MoreModel
from fixtures.trained_tokenizers import write_byte_level

pytestmark = pytest.mark.llama

Array = npt.NDArray[np.float32]
MXFP4 = GGMLQuantizationType.MXFP4
MODELS = [MoreModel(name) for name in KINDS]
# What a fault is planted in: -exp(x) of a number where there is such a tensor, or a norm.
CHANGED = ("blk.0.ssm_a", "blk.0.attn_norm.weight", "blk.0.post_attention_norm.weight")
DIRECTORIES = [model for model in MODELS if not model.kind.gguf_only]


def _thorough_unless(needed: object) -> list[pytest.MarkDecorator]:
    return [] if needed else [pytest.mark.thorough]


@pytest.mark.parametrize("model", DIRECTORIES, ids=str)
def test_its_directory_becomes_its_gguf(model: MoreModel, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    gguf = _converted(_directory(model, tmp_path), tmp_path)
    ours, theirs = tensors(gguf), tensors(model.gguf)
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name], err_msg=name)
    base, _ = more_logits(model)
    assert kl(base, _llama_cpp(llama_cpp, gguf)) < model.kind.floor
    np.testing.assert_array_equal(_llama_cpp(llama_cpp, gguf), _llama_cpp(llama_cpp, model.gguf))


@pytest.mark.parametrize(
    ("name", "wrapper"),
    [("ministral3", "mistral3"), ("gemma4", "gemma4"), ("internlm3", "llava"), ("qwen35", "qwen3_5")],
)
@pytest.mark.parametrize("prefix", ["language_model.{}", "model.language_model.{}"])
def test_a_wrapped_text_model_becomes_the_same_gguf(name: str, wrapper: str, prefix: str, tmp_path: Path) -> None:
    """As multimodal checkpoints have it: its config within theirs, its weights below a name, a tower beside it.

    So are Qwen 3.5's layers that predict tokens behind the next one, which aren't counted.
    """
    model = MoreModel(name)
    directory = _directory(model, tmp_path)
    config = json.loads((directory / "config.json").read_bytes())
    whole = {"model_type": wrapper, "text_config": config, "tie_word_embeddings": False}
    (directory / "config.json").write_text(json.dumps(whole), encoding="utf-8")
    weights = load_file(directory / "model.safetensors")
    wrapped = {_wrapped(key, prefix): values for key, values in weights.items()}
    others = ("vision_tower.patch_conv.weight", "mtp.layers.0.mlp.up_proj.weight", "mtp.norm.weight")
    tower = {key: weights["model.norm.weight"].clone() for key in others}
    save_file(wrapped | tower, directory / "model.safetensors")
    ours, theirs = tensors(_converted(directory, tmp_path)), tensors(model.gguf)
    assert ours.keys() == theirs.keys()
    for key, values in ours.items():
        np.testing.assert_array_equal(values, theirs[key], err_msg=key)


LATENT = [MoreModel(name) for name in ("deepseek2", "deepseek_v2", "deepseek_v2-lite", "glm4_moe_lite")]
HONOURED = ("o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.mark.parametrize("model", LATENT, ids=str)
def test_a_lora_on_what_deepseeks_graph_honours(model: MoreModel, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    adapter, base = read_adapter(more_adapter(model, on=HONOURED)), read_base_model(model.gguf)
    (lora,) = write(plan(adapter, base, _deployment("lora")), tmp_path / "out")
    without, peft = more_logits(model, on=HONOURED)
    assert kl(peft, without) > 1e-2
    assert kl(peft, _llama_cpp(llama_cpp, model.gguf, lora=lora.path)) / kl(peft, without) < model.kind.ratio


@pytest.mark.parametrize("model", LATENT, ids=str)
@pytest.mark.parametrize("module", ["q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "lm_head"])
def test_a_lora_that_deepseeks_graph_ignores(
    model: MoreModel, module: str, llama_cpp: LlamaCpp, tmp_path: Path
) -> None:
    """It is refused, and merged it is applied."""
    if (module == "q_proj") != (model.name == "deepseek_v2-lite") and module.startswith("q_"):
        return
    adapter, base = read_adapter(more_adapter(model, on=(module,))), read_base_model(model.gguf)
    with pytest.raises(Refused, match=r": GG005$"):
        plan(adapter, base, _deployment("lora"))
    (merged,) = write(plan(adapter, base, _deployment("model")), tmp_path / "out")
    without, peft = more_logits(model, on=(module,))
    assert kl(peft, without) > 1e-4
    assert kl(peft, _llama_cpp(llama_cpp, merged.path)) / kl(peft, without) < model.kind.ratio


def test_layers_that_predict_further_are_not_counted(tmp_path: Path) -> None:
    """Of GLM 4.5 they are numbered on. Where config.json says nothing of them they are left over."""
    model = MoreModel("glm4moe")
    directory = _directory(model, tmp_path)
    weights = load_file(directory / "model.safetensors")
    more = {f"model.layers.3.{name}.weight": torch.ones(4, 4) for name in ("eh_proj", "self_attn.q_proj")}
    save_file(weights | more, directory / "model.safetensors")
    adapter = read_adapter(more_adapter(model))
    with pytest.raises(Refused, match="BM041"):
        plan(adapter, read_base_model(directory), _deployment("model"))
    _edit_config(directory, num_nextn_predict_layers=1)
    ours, theirs = tensors(_converted(directory, tmp_path)), tensors(model.gguf)
    assert ours.keys() == theirs.keys()


def test_what_ernie_predicts_further_with_is_not_needed(tmp_path: Path) -> None:
    model = MoreModel("ernie4_5-moe")
    directory = _directory(model, tmp_path)
    weights = load_file(directory / "model.safetensors")
    names = ("block.0.self_attn.q_proj", "emb_norm.0", "hidden_norm.0", "linear_proj.0")
    more = {f"model.mtp_{name}.weight": torch.ones(4, 4) for name in names}
    save_file(weights | more, directory / "model.safetensors")
    ours, theirs = tensors(_converted(directory, tmp_path)), tensors(model.gguf)
    assert ours.keys() == theirs.keys()


@pytest.mark.parametrize("to", ["lora", "model"])
def test_what_all_tokens_ask_of_ernie_is_served_exactly(to: Kind, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """Its first layer, and an expert beside the others, which PEFT 0.21 makes no LoRA on where experts are fused."""
    model = MoreModel("ernie4_5-moe")
    peft = model.load()
    adapter = read_adapter(_on_what_all_ask(peft, tmp_path / "adapter"))
    (written,) = write(plan(adapter, read_base_model(model.gguf), _deployment(to)), tmp_path / "out")
    files: Mapping[str, Any] = {"lora": written.path} if to == "lora" else {}
    found = _llama_cpp(llama_cpp, model.gguf if to == "lora" else written.path, **files)
    without, _ = more_logits(model)
    wanted = _transformers(peft)
    assert kl(wanted, without) > 1e-2
    assert kl(wanted, found) / kl(wanted, without) < model.kind.ratio


def _on_what_all_ask(model: PreTrainedModel, directory: Path) -> Path:
    """A LoRA on dense layers and shared experts, as PEFT without fused experts saves it; the model gets its deltas."""
    targets = r".*\.(0\.mlp|shared_experts)\.(gate|up|down)_proj"
    generator = torch.Generator().manual_seed(29)
    tensors: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for name, module in model.named_modules():
            if re.fullmatch(targets, name):
                a = 0.06 * torch.randn(8, module.weight.shape[1], generator=generator)
                b = 0.06 * torch.randn(module.weight.shape[0], 8, generator=generator)
                tensors |= {f"base_model.model.{name}.lora_{factor}.weight": it for factor, it in (("A", a), ("B", b))}
                module.weight += 2 * b @ a
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors", {"format": "pt"})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16, "target_modules": targets}
    (directory / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


def _transformers(model: PreTrainedModel) -> Array:
    with torch.no_grad():
        logits: Array = model(input_ids=torch.tensor(SEQUENCES), use_cache=False).logits.numpy()
    return logits


def test_ernie_may_ask_no_expert_always(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """As of 300B parameters: neither the weights nor the metadata have one, and with a width the loader wants it."""
    model = MoreModel("ernie4_5-moe")
    directory = _directory(model, tmp_path)
    weights = load_file(directory / "model.safetensors")
    kept = {key: values for key, values in weights.items() if ".shared_experts." not in key}
    assert len(kept) < len(weights)
    save_file(kept, directory / "model.safetensors", {"format": "pt"})
    adapter = read_adapter(more_adapter(model, on_experts=True))
    with pytest.raises(Refused, match="BM040"):
        plan(adapter, read_base_model(directory), _deployment("model"))
    _edit_config(directory, moe_num_shared_experts=0)
    wanted = _transformers(model.load(directory))
    assert kl(wanted, _llama_cpp(llama_cpp, _converted(directory, tmp_path))) < model.kind.floor
    with pytest.raises(Refused, match=r": BM001$"):
        plan(
            read_adapter(_on_what_all_ask(model.load(), tmp_path / "adapter")),
            read_base_model(directory),
            _deployment("model"),
        )


def test_pythia_has_the_fields_of_its_time(tmp_path: Path) -> None:
    model = MoreModel("gptneox")
    directory = _directory(model, tmp_path)
    _edit_config(directory, rope_parameters=None, rotary_pct=0.5, rotary_emb_base=20000)
    ours, theirs = GGUFReader(_converted(directory, tmp_path)), GGUFReader(model.gguf)
    for key in ("gptneox.rope.freq_base", "gptneox.rope.dimension_count"):
        assert ours.fields[key].contents() == theirs.fields[key].contents()


def _edit_config(directory: Path, **fields: object) -> None:
    config = json.loads((directory / "config.json").read_bytes())
    kept = {name: value for name, value in {**config, **fields}.items() if value is not None}
    (directory / "config.json").write_text(json.dumps(kept), encoding="utf-8")


def _wrapped(key: str, prefix: str) -> str:
    """Transformers 5 keeps the head beside the language model, 4 within it."""
    if prefix.startswith("model."):
        return key if key.startswith("lm_head") else prefix.format(key.removeprefix("model."))
    return prefix.format(key)


@pytest.mark.parametrize("to", ["lora", "model"])
@pytest.mark.parametrize(
    ("model", "of"),
    [
        *((model, "gguf") for model in MODELS),
        *(pytest.param(model, "directory", marks=_thorough_unless(model.kind.directory_only)) for model in DIRECTORIES),
    ],
    ids=str,
)
def test_an_adapter_is_applied_exactly(
    model: MoreModel, of: str, to: Kind, llama_cpp: LlamaCpp, tmp_path: Path
) -> None:
    path = model.gguf if of == "gguf" else _directory(model, tmp_path)
    if of == "gguf" and model.kind.directory_only:
        with pytest.raises(Refused, match=f": {model.kind.directory_only}$"):
            plan(read_adapter(more_adapter(model)), read_base_model(path), _deployment(to))
        return
    if to == "lora" and model.kind.lora_refused:
        with pytest.raises(Refused, match=model.kind.lora_refused):
            plan(read_adapter(more_adapter(model)), read_base_model(path), _deployment(to))
        return
    (written,) = write(
        plan(read_adapter(more_adapter(model)), read_base_model(path), _deployment(to)), tmp_path / "out"
    )
    files: Mapping[str, Any] = {"lora": written.path} if to == "lora" else {}
    found = _llama_cpp(llama_cpp, model.gguf if to == "lora" else written.path, **files)
    base, peft = more_logits(model)
    assert kl(peft, base) > 1e-2  # it has an effect
    assert kl(peft, found) / kl(peft, base) < model.kind.ratio


@pytest.mark.parametrize("to", ["lora", "model"])
@pytest.mark.parametrize("model", [model for model in MODELS if model.kind.has_experts], ids=str)
def test_experts_are_served_exactly(model: MoreModel, to: Kind, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    adapter, base = read_adapter(more_adapter(model, on_experts=True)), read_base_model(model.gguf)
    if to == "lora" and model.kind.experts_refused:
        with pytest.raises(Refused, match=f": {model.kind.experts_refused}$"):
            plan(adapter, base, _deployment(to))
        return
    (written,) = write(plan(adapter, base, _deployment(to)), tmp_path / "out")
    files: Mapping[str, Any] = {"lora": written.path} if to == "lora" else {}
    found = _llama_cpp(llama_cpp, model.gguf if to == "lora" else written.path, **files)
    without, peft = more_logits(model, on_experts=True)
    assert kl(peft, without) > 1e-3
    assert kl(peft, found) / kl(peft, without) < model.kind.ratio


@pytest.mark.parametrize(
    ("model", "on_experts"),
    [(model, False) for model in MODELS] + [(model, True) for model in MODELS if model.kind.has_experts],
    ids=str,
)
def test_it_is_proven_and_the_base_alone_is_not(
    model: MoreModel, on_experts: bool, llama_cpp: LlamaCpp, tmp_path: Path
) -> None:
    adapter = read_adapter(more_adapter(model, on_experts=on_experts))
    path = _directory(model, tmp_path) if model.kind.directory_only else model.gguf
    (written,) = write(plan(adapter, read_base_model(path), _deployment("model")), tmp_path / "out")
    proven = prove(Case(adapter, model.hf, DeployedModel(written.path, model.gguf), SEQUENCES), llama_cpp)
    assert not list(proven.failures)
    assert proven.comparison is not None
    assert proven.comparison.effect_ratio < model.kind.ratio
    base = prove(Case(adapter, model.hf, DeployedModel(model.gguf, model.gguf), SEQUENCES), llama_cpp)
    touched = {check.tensor for check in proven.tensors.checks if check.touched}
    assert touched == {check.tensor for check in base.tensors.checks if check.fault}


def test_every_number_is_compared_where_the_base_is_not_at_hand(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """The biases of gpt-oss' experts too, whose rows alternate like their weights'."""
    model = MoreModel("gpt-oss")
    adapter = read_adapter(more_adapter(model, on_experts=True))
    (written,) = write(plan(adapter, read_base_model(model.gguf), _deployment("model")), tmp_path / "out")
    proven = prove(Case(adapter, model.hf, DeployedModel(written.path), SEQUENCES), llama_cpp)
    assert not proven.tensors.faults
    assert {"blk.0.ffn_gate_exps.bias", "blk.0.ffn_up_exps.bias"} < {
        check.tensor for check in proven.tensors.checks if check.by == "numbers"
    }


def test_mxfp4_experts_are_kept_where_they_are_not_touched(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    model = MoreModel("gpt-oss")
    base = _with_experts_in_mxfp4(model.gguf, tmp_path / "base.gguf")
    adapter = _on_experts_of_layer_1(more_adapter(model, on_experts=True), tmp_path / "adapter")
    (written,) = write(plan(adapter, read_base_model(base), _deployment("model")), tmp_path / "merged.gguf")
    before, after = _by_name(base), _by_name(written.path)
    assert before.keys() == after.keys()
    changed = {name for name in before if not np.array_equal(before[name].data, after[name].data)}
    assert changed == {f"blk.1.ffn_{part}_exps.weight" for part in ("gate", "up", "down")}
    assert before["blk.0.ffn_up_exps.weight"].tensor_type is after["blk.0.ffn_up_exps.weight"].tensor_type is MXFP4
    (of_floats,) = write(plan(adapter, read_base_model(model.gguf), _deployment("model")), tmp_path / "of_floats.gguf")
    floats, merged = tensors(model.gguf), tensors(of_floats.path)
    for name in changed:
        delta = after[name].data - dequantize(before[name].data, MXFP4)
        np.testing.assert_allclose(delta, merged[name] - floats[name], atol=1e-6, err_msg=name)
    (lora,) = write(plan(adapter, read_base_model(base), _deployment("lora")), tmp_path / "lora.gguf")
    served, wanted = _llama_cpp(llama_cpp, written.path), _llama_cpp(llama_cpp, base, lora=lora.path)
    assert kl(wanted, served) < 1e-2 * kl(wanted, _llama_cpp(llama_cpp, base))  # ggml rounds what MXFP4 multiplies


def _with_experts_in_mxfp4(source: Path, target: Path) -> Path:
    """As OpenAI's own checkpoints become GGUFs."""
    reader = GGUFReader(source)
    writer = GGUFWriter(target, str(reader.fields["general.architecture"].contents()))
    for key, entry in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            writer.add_key_value(key, entry.contents(), *entry.types[:2])
    for tensor in reader.tensors:
        is_experts = tensor.name.endswith("_exps.weight")
        data = np.array([quantize(matrix, MXFP4) for matrix in tensor.data]) if is_experts else tensor.data
        writer.add_tensor(tensor.name, data, raw_dtype=MXFP4 if is_experts else tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _on_experts_of_layer_1(source: Path, target: Path) -> Adapter:
    """What is left of an adapter on all experts where target_parameters name those of one layer."""
    shutil.copytree(source, target)
    config = json.loads((target / "adapter_config.json").read_bytes())
    parameters = [f"layers.1.mlp.{name}" for name in config["target_parameters"]]
    stated = {**config, "target_modules": [], "target_parameters": parameters}
    (target / "adapter_config.json").write_text(json.dumps(stated), encoding="utf-8")
    tensors = load_file(target / "adapter_model.safetensors")
    kept = {key: values for key, values in tensors.items() if "layers.1.mlp.experts" in key}
    save_file(kept, target / "adapter_model.safetensors", {"format": "pt"})
    return read_adapter(target)


def _by_name(gguf: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in GGUFReader(gguf).tensors}


@pytest.mark.parametrize("version", ["0.18.1", None])
def test_experts_that_are_kept_transposed_are_read_whichever_peft_saved_them(
    version: str | None, tmp_path: Path
) -> None:
    """gpt-oss': the shapes of both parameters tell how they lie."""
    adapter = tmp_path / "adapter"
    shutil.copytree(more_adapter(MoreModel("gpt-oss"), on_experts=True), adapter)
    config = json.loads((adapter / "adapter_config.json").read_bytes())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "peft_version": version}), encoding="utf-8")
    base = read_base_model(MoreModel("gpt-oss").gguf)
    files: list[dict[str, Array]] = []
    for path in (adapter, more_adapter(MoreModel("gpt-oss"), on_experts=True)):
        (written,) = write(plan(read_adapter(path), base, _deployment("lora")), tmp_path / f"{len(files)}.gguf")
        files.append(tensors(written.path))
    assert files[0].keys() == files[1].keys()
    for name, values in files[0].items():
        np.testing.assert_array_equal(values, files[1][name], err_msg=name)


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_a_lora_needs_no_more_than_config_json(model: MoreModel, tmp_path: Path) -> None:
    """It is the one over the base's weights, byte for byte."""
    directory = tmp_path / "base"
    directory.mkdir()
    shutil.copy(model.hf / "config.json", directory)
    adapter = read_adapter(more_adapter(model))
    if model.kind.lora_refused:
        with pytest.raises(Refused, match=f": {model.kind.lora_refused}$"):
            plan(adapter, read_base_model(directory), _deployment("lora"))
        return
    files = []
    for path in (directory, model.hf if model.kind.directory_only else model.gguf):
        (written,) = write(plan(adapter, read_base_model(path), _deployment("lora")), tmp_path / f"{path.name}.out")
        files.append(tensors(written.path))
    assert files[0].keys() == files[1].keys()
    for name, values in files[0].items():
        np.testing.assert_array_equal(values, files[1][name], err_msg=name)


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_both_forms_have_one_fingerprint(model: MoreModel) -> None:
    directory, gguf = (fingerprint(read_base_model(path)) for path in (model.hf, model.gguf))
    assert directory == gguf
    other = next(it for it in MODELS if it.name != model.name)
    assert directory != fingerprint(read_base_model(other.gguf))


@pytest.mark.parametrize(
    "model",
    [pytest.param(it, marks=() if it.name in {"qwen35", "lfm2"} else pytest.mark.thorough) for it in DIRECTORIES],
    ids=str,
)
def test_every_tensor_of_it_is_proven(model: MoreModel, tmp_path: Path) -> None:
    """By adapter-verify, of a model merged over the directory; the control is a vector with another number."""
    directory, adapter = _directory(model, tmp_path), read_adapter(more_adapter(model))
    (written,) = write(plan(adapter, read_base_model(directory), _deployment("model")), tmp_path / "out")
    reference = Reference(directory, adapter)

    def faults() -> tuple[str, ...]:
        return prove_model(read_base_model(written.path), None, reference, lambda *_: None).faults

    assert not faults()
    reader = GGUFReader(written.path, "r+")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    changed = tensors[next((name for name in tensors if name in CHANGED), "token_embd.weight")]  # OLMo 1 has no vector
    changed.data.reshape(-1)[0] *= 1.5
    reader.data.flush()
    assert [fault.split()[0] for fault in faults()] == [changed.name]


@pytest.mark.parametrize(
    ("name", "changed"), [("apertus", "xielu.alpha_p"), ("muse-glimmer", "blk.1.attn_q_norm.weight")]
)
def test_what_is_no_weight_of_a_module_is_proven(name: str, changed: str, tmp_path: Path) -> None:
    """Numbers that metadata hold, and vectors that the config tells; the control is another number."""
    model = MoreModel(name)
    directory, adapter = _directory(model, tmp_path), read_adapter(more_adapter(model))
    (written,) = write(plan(adapter, read_base_model(directory), _deployment("model")), tmp_path / "out")
    reference = Reference(directory, adapter)
    reader = GGUFReader(written.path, "r+")
    field = reader.fields.get(changed)
    vectors = {tensor.name: tensor.data for tensor in reader.tensors}
    (field.parts[field.data[1]] if field else vectors[changed])[0] *= 1.5
    reader.data.flush()
    (fault,) = prove_model(read_base_model(written.path), None, reference, lambda *_: None).faults
    assert fault.startswith(f"{changed} isn't what ")


@pytest.mark.parametrize("lacks", [True, False])
def test_every_layer_has_what_xielu_learned(lacks: bool, tmp_path: Path) -> None:
    model = MoreModel("apertus")
    directory, key = _directory(model, tmp_path), "model.layers.1.mlp.act_fn.beta"
    weights = load_file(directory / "model.safetensors")
    of_two = {} if lacks else {key: torch.ones(2)}
    kept = {name: values for name, values in weights.items() if name != key}
    save_file(kept | of_two, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(Refused, match=r": BM040$") as refused:
        plan(read_adapter(more_adapter(model)), read_base_model(directory), _deployment("model"))
    (finding,) = refused.value.report.stopping
    assert key in f"{finding.where} {finding.message}"


def test_muse_glimmers_layers_rotate_where_they_have_a_window(tmp_path: Path) -> None:
    model = MoreModel("muse-glimmer")
    directory = _directory(model, tmp_path)
    config = json.loads((directory / "config.json").read_bytes())
    config["text_config"]["layer_rope_theta"] = [0, 1e4, 0, 0]
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(Refused, match=r": BM045$"):
        plan(read_adapter(more_adapter(model)), read_base_model(directory), _deployment("model"))


@pytest.mark.parametrize("model", [model for model in MODELS if model.kind.gguf_only], ids=str)
def test_a_directory_that_lacks_metadata_is_refused(model: MoreModel, tmp_path: Path) -> None:
    base = read_base_model(_directory(model, tmp_path))
    with pytest.raises(Refused, match=r": BM048$"):
        plan(read_adapter(more_adapter(model)), base, _deployment("model"))


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_its_loader_wants_a_head_where_it_is_said(model: MoreModel, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    tied = without_head(model.gguf, tmp_path / "tied.gguf")
    if model.name in WANTING_A_HEAD:
        with pytest.raises(LlamaCppFailed, match="output"):
            _llama_cpp(llama_cpp, tied)
    else:
        assert not np.array_equal(_llama_cpp(llama_cpp, tied), _llama_cpp(llama_cpp, model.gguf))


def _deployment(to: Kind) -> Deployment:
    return Deployment("lora") if to == "lora" else Deployment("model", outtype="f32")


def _directory(model: MoreModel, tmp_path: Path) -> Path:
    """The model's directory, with a tokenizer."""
    directory = tmp_path / "base"
    shutil.copytree(model.hf, directory)
    return write_byte_level("gpt-2", directory, N_VOCAB)


def _converted(directory: Path, tmp_path: Path) -> Path:
    base = read_base_model(directory)
    _require_no_findings(base)
    tensors = tuple(tensor.planned(tensor.name) for tensor in base_tensors(base))
    path = tmp_path / "converted.gguf"
    with path.open("wb") as file:
        write_gguf(PlannedFile("model", tensors, base_key_values(base, tensors)), file, lambda _: None)
    return path


def _require_no_findings(base: BaseModel) -> None:
    adapter = read_adapter(more_adapter(MoreModel("olmo3")))  # whose modules are another's: only the base is looked at
    report = check_adapter(adapter, base, Deployment("model"))
    assert not [finding for finding in report.findings if "BM040" <= finding.code <= "BM049"]


def _llama_cpp(llama_cpp: LlamaCpp, gguf: Path, **files: Any) -> Array:
    return np.stack(llama_cpp.logits(gguf, SEQUENCES, **files))
