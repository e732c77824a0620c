"""The adapters and bases that the golden cases name, written into one directory."""

from pathlib import Path

from tests.rules.specimens import (
    EMBEDDING,
    HEAD,
    HIDDEN,
    VOCAB,
    Specimen,
    base_embedding,
    embedding_lora,
    head_lora,
    tensor,
    write_gguf,
    write_huggingface,
)


def write_inputs(root: Path) -> None:
    write_gguf(root / "tied.gguf")
    write_gguf(root / "untied.gguf", tied=False)
    write_huggingface(root / "gemma", model_type="gemma")
    (root / "empty").mkdir()
    for name in ADAPTERS:
        _adapter(root / "adapters" / name, name).write()
    _spoil(root)


ADAPTERS = ("plain", "head", "foreign-head", "tied-pair", "saved-head", "nan", "truncated", "odd-config")


def _adapter(directory: Path, name: str) -> Specimen:
    it = Specimen(directory, base=None)
    match name:
        case "head":
            it.tensors |= head_lora() | {f"{HEAD}.base_layer.weight": base_embedding()}
        case "foreign-head":
            it.tensors |= head_lora() | {f"{HEAD}.base_layer.weight": tensor(VOCAB, HIDDEN, seed=3)}
        case "tied-pair":
            it.tensors |= head_lora() | embedding_lora()
            it.config["ensure_weight_tying"] = True
        case "saved-head":
            it.tensors[f"{HEAD}.weight"] = tensor(VOCAB, HIDDEN)
            it.config["modules_to_save"] = ["lm_head"]
        case "nan":
            nan = b"\x00\x00\xc0\x7f"
            it.tensors = {key: (dtype, shape, nan + data[4:]) for key, (dtype, shape, data) in it.tensors.items()}
        case "odd-config":
            it.config |= {"use_dora": True, "scale_\x1b[31mred": 2, "megatron_core": "mine.core"}
    return it


def _spoil(root: Path) -> None:
    weights = root / "adapters" / "truncated" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    embedding = Specimen(root / "embedding", base=None)
    embedding.tensors |= embedding_lora() | {f"{EMBEDDING}.base_layer.weight": base_embedding()}
    embedding.write()
