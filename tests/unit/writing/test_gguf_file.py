"""Written files, read back by independent readers: gguf's for GGUF, safetensors' for adapters."""

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from safetensors.numpy import load_file

from converter.derive.base_model import read_base_model
from converter.diagnostics import Deployment
from converter.planning.plan_data import plan_digest
from tests.rules.specimens import (
    EMBEDDING,
    HEAD,
    HEAD_DIM,
    HIDDEN,
    N_HEAD,
    PREFIX,
    VOCAB,
    Specimen,
    embedding_lora,
    head_lora,
    tensor,
)
from tests.unit.conversion import (
    LORA,
    MODEL,
    UNTIED_LORA,
    UNTIED_MODEL,
    convert,
    entries_of,
    metadata_of,
    tensors_of,
    values_of,
    write_base,
)

SCALING = 32 / 4
GGUF_NAMES = {"self_attn.q_proj": "attn_q", "self_attn.v_proj": "attn_v", "mlp.down_proj": "ffn_down"}
OURS = (
    "adapter_to_gguf.version",
    "adapter_to_gguf.adapter.sha256",
    "adapter_to_gguf.plan.sha256",
    "adapter_to_gguf.base.fingerprint",
)


@pytest.fixture
def specimen(tmp_path: Path) -> Specimen:
    return Specimen(tmp_path / "adapter", write_base(tmp_path / "base.gguf"))


def base_of(specimen: Specimen) -> Path:
    assert specimen.base
    return specimen.base


def interleaved(rows: np.ndarray) -> np.ndarray:
    """q_proj's rows as llama.cpp keeps them: of each head the halves by turns."""
    per_head = (rows[head * HEAD_DIM : (head + 1) * HEAD_DIM] for head in range(N_HEAD))
    half = HEAD_DIM // 2
    return np.stack([head[i + half * j] for head in per_head for i in range(half) for j in (0, 1)])


def ordered(name: str, rows: np.ndarray) -> np.ndarray:
    return interleaved(rows) if name == "self_attn.q_proj" else rows


# --- LoRA files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "numpy_type"), [("F32", np.float32), ("F16", np.float16)])
def test_factors_are_the_safetensors_bytes(dtype: str, numpy_type: type, specimen: Specimen, tmp_path: Path) -> None:
    specimen.tensors = {
        key: (dtype, shape, np.frombuffer(data, "<f4").astype(numpy_type).tobytes())
        for key, (_, shape, data) in specimen.tensors.items()
    }
    convert(specimen, tmp_path / "lora.gguf")
    written = tensors_of(tmp_path / "lora.gguf")
    factors = load_file(specimen.weights)
    assert len(written) == len(factors) == 12
    for layer in (0, 1):
        for name, gguf_name in GGUF_NAMES.items():
            module, stem = f"{PREFIX}.model.layers.{layer}.{name}", f"blk.{layer}.{gguf_name}.weight"
            a, b = (factors[f"{module}.lora_{factor}.weight"] for factor in "AB")
            for found, wanted in ((written[f"{stem}.lora_a"], a), (written[f"{stem}.lora_b"], ordered(name, b))):
                assert found.data.tobytes() == wanted.tobytes()
                assert tuple(found.shape.tolist()) == wanted.shape[::-1]
                assert found.tensor_type.name == dtype


def test_the_factors_of_an_embedding_are_turned(specimen: Specimen, tmp_path: Path) -> None:
    specimen.tensors |= embedding_lora()
    convert(specimen, tmp_path / "both", UNTIED_LORA)
    factors, written = load_file(specimen.weights), tmp_path / "both" / "lora.gguf"
    a, b = (values_of(written, f"token_embd.weight.lora_{factor}") for factor in "ab")
    np.testing.assert_array_equal(a, factors[f"{EMBEDDING}.lora_embedding_A"].T)
    np.testing.assert_array_equal(b, factors[f"{EMBEDDING}.lora_embedding_B"])


def test_a_lora_says_what_it_is(specimen: Specimen, tmp_path: Path) -> None:
    specimen.config["base_model_name_or_path"] = "meta-llama/Llama-2-7b"
    convert(specimen, tmp_path / "lora.gguf")
    found = metadata_of(tmp_path / "lora.gguf")
    assert {key: found.pop(key) for key in OURS}
    assert found == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 32.0,
        "general.base_model.count": 1,
        "general.base_model.0.name": "Llama-2-7b",
        "general.base_model.0.organization": "meta-llama",
        "general.base_model.0.repo_url": "https://huggingface.co/meta-llama/Llama-2-7b",
    }


# --- Models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outtype", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
def test_what_the_adapter_leaves_alone_is_the_bases_bytes(outtype: str, specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_base(tmp_path / "typed.gguf", outtype=outtype)
    specimen.config["target_modules"] = ["v_proj"]
    specimen.tensors = {key: value for key, value in specimen.tensors.items() if "v_proj" in key}
    convert(specimen, tmp_path / "model.gguf", MODEL)
    before, after = tensors_of(base_of(specimen)), tensors_of(tmp_path / "model.gguf")
    assert list(after) == list(before)
    for name, found in after.items():
        same = found.data.tobytes() == before[name].data.tobytes() and found.tensor_type == before[name].tensor_type
        assert same == ("attn_v" not in name), name


def test_a_merged_weight_is_base_plus_delta(specimen: Specimen, tmp_path: Path) -> None:
    convert(specimen, tmp_path / "model.gguf", MODEL)
    factors = load_file(specimen.weights)
    for name, gguf_name in GGUF_NAMES.items():
        module, stem = f"{PREFIX}.model.layers.1.{name}", f"blk.1.{gguf_name}.weight"
        a, b = (factors[f"{module}.lora_{factor}.weight"].astype(np.float64) for factor in "AB")
        wanted = values_of(base_of(specimen), stem) + SCALING * ordered(name, b @ a)
        np.testing.assert_array_equal(values_of(tmp_path / "model.gguf", stem), wanted.astype(np.float32))


@pytest.mark.parametrize("part", ["head", "embedding", "both", "saved head", "saved embedding", "own base"])
def test_untied_ends_hold_what_each_end_has(part: str, specimen: Specimen, tmp_path: Path) -> None:
    base = values_of(base_of(specimen), "token_embd.weight")
    embedding, head = base, base
    delta = embedding_delta()  # head_lora and embedding_lora are one delta
    match part:
        case "head" | "embedding" | "both":
            specimen.tensors |= head_lora() if part != "embedding" else {}
            specimen.tensors |= embedding_lora() if part != "head" else {}
            head = base + delta if part != "embedding" else base
            embedding = base + delta if part != "head" else base
        case "saved head":
            specimen.tensors[f"{HEAD}.weight"] = tensor(VOCAB, HIDDEN, seed=8)
            specimen.config["modules_to_save"] = ["lm_head"]
            head = decoded(tensor(VOCAB, HIDDEN, seed=8))
        case "saved embedding":
            specimen.tensors[f"{EMBEDDING}.weight"] = tensor(VOCAB, HIDDEN, seed=8)
            specimen.config["modules_to_save"] = ["embed_tokens"]
            embedding = decoded(tensor(VOCAB, HIDDEN, seed=8))
        case _:
            specimen.tensors |= head_lora() | {f"{HEAD}.base_layer.weight": tensor(VOCAB, HIDDEN, seed=9)}
            head = decoded(tensor(VOCAB, HIDDEN, seed=9)) + delta
    convert(specimen, tmp_path / "model.gguf", UNTIED_MODEL)
    for name, wanted in (("token_embd.weight", embedding), ("output.weight", head)):
        np.testing.assert_array_equal(values_of(tmp_path / "model.gguf", name), wanted.astype(np.float32))


def test_a_tied_pair_is_added_once(specimen: Specimen, tmp_path: Path) -> None:
    specimen.tensors |= head_lora() | embedding_lora()
    specimen.config["ensure_weight_tying"] = True
    convert(specimen, tmp_path / "model.gguf", MODEL)
    assert "output.weight" not in tensors_of(tmp_path / "model.gguf")
    wanted = values_of(base_of(specimen), "token_embd.weight") + embedding_delta()
    found = values_of(tmp_path / "model.gguf", "token_embd.weight")
    np.testing.assert_array_equal(found, wanted.astype(np.float32))


def embedding_delta() -> np.ndarray:
    a, b = (decoded(head_lora()[f"{HEAD}.lora_{factor}.weight"]) for factor in "AB")
    product: np.ndarray = SCALING * (b @ a)
    return product


def decoded(stored: tuple[str, tuple[int, ...], bytes]) -> np.ndarray:
    _, shape, data = stored
    return np.frombuffer(data, "<f4").reshape(shape).astype(np.float64)


def test_an_untied_base_is_the_base_and_its_embedding_again(specimen: Specimen, tmp_path: Path) -> None:
    specimen.tensors |= head_lora()
    convert(specimen, tmp_path / "both", UNTIED_LORA)
    before, after = tensors_of(base_of(specimen)), tensors_of(tmp_path / "both" / "untied-base.gguf")
    assert set(after) == {*before, "output.weight"}
    for name, found in after.items():
        original = before["token_embd.weight" if name == "output.weight" else name]
        assert found.data.tobytes() == original.data.tobytes()
    assert [t.split(".lora_")[0] for t in tensors_of(tmp_path / "both" / "lora.gguf")].count("output.weight") == 2


# --- Metadata and layout ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deployment", [MODEL, UNTIED_MODEL, UNTIED_LORA], ids=lambda it: it.kind)
def test_metadata_go_over_as_the_bytes_they_are(deployment: Deployment, specimen: Specimen, tmp_path: Path) -> None:
    files = convert(specimen, tmp_path / "output", deployment).files
    before, after = entries_of(base_of(specimen)), entries_of(files[0].path)
    added = {key: value for key, value in after.items() if key not in before}
    assert {key: value for key, value in after.items() if key in before} == before
    assert len(before) == 14
    assert all(key.startswith("adapter_to_gguf.") for key in added)


@pytest.mark.parametrize("alignment", [None, 64, 8])
@pytest.mark.parametrize("deployment", [MODEL, UNTIED_LORA], ids=lambda it: it.kind)
def test_the_bases_alignment_is_kept(
    alignment: int | None, deployment: Deployment, specimen: Specimen, tmp_path: Path
) -> None:
    specimen.base = write_base(tmp_path / "aligned.gguf", alignment=alignment, outtype="Q8_0")
    files = convert(specimen, tmp_path / "output", deployment).files
    reader = GGUFReader(files[0].path)
    assert reader.alignment == (alignment or 32)
    assert all(tensor.data_offset % reader.alignment == 0 for tensor in reader.tensors)
    assert files[0].path.stat().st_size % reader.alignment == 0


def test_split_files_become_one(specimen: Specimen, tmp_path: Path) -> None:
    whole = convert(specimen, tmp_path / "whole.gguf", MODEL)
    specimen.base = write_base(tmp_path / "split.gguf", tensors_per_file=3)
    assert len(read_base_model(specimen.base).shards) == 4
    convert(specimen, tmp_path / "model.gguf", MODEL)
    assert not [key for key in metadata_of(tmp_path / "model.gguf") if key.startswith("split.")]
    before, after = tensors_of(whole.files[0].path), tensors_of(tmp_path / "model.gguf")
    assert {name: t.data.tobytes() for name, t in after.items()} == {n: t.data.tobytes() for n, t in before.items()}


def test_the_size_is_known_before(specimen: Specimen, tmp_path: Path) -> None:
    for deployment in (LORA, MODEL, UNTIED_LORA, UNTIED_MODEL):
        converted = convert(specimen, tmp_path / deployment.kind, deployment)
        for written in converted.files:
            assert written.nbytes == written.path.stat().st_size


def test_one_plan_gives_one_file(specimen: Specimen, tmp_path: Path) -> None:
    one, other = (convert(specimen, tmp_path / name, MODEL) for name in ("one.gguf", "other.gguf"))
    assert plan_digest(one.plan) == plan_digest(other.plan)
    assert one.files[0].path.read_bytes() == other.files[0].path.read_bytes()


def test_a_file_begins_as_the_format_says(specimen: Specimen, tmp_path: Path) -> None:
    convert(specimen, tmp_path / "lora.gguf")
    start = (tmp_path / "lora.gguf").read_bytes()[:24]
    assert struct.unpack("<4sIQQ", start) == (b"GGUF", 3, 12, 12)


@pytest.mark.parametrize("deployment", [LORA, MODEL, UNTIED_LORA, UNTIED_MODEL], ids=lambda it: it.kind)
def test_no_file_names_a_path(deployment: Deployment, specimen: Specimen, tmp_path: Path) -> None:
    specimen.config["base_model_name_or_path"] = str(tmp_path / "base")
    for written in convert(specimen, tmp_path / "output", deployment).files:
        data = written.path.read_bytes()
        assert str(tmp_path).encode() not in data
        assert tmp_path.name.encode() not in data


# --- Threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 4])
def test_threads_change_no_byte(n: int, specimen: Specimen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.writing.gguf_file.n_threads", lambda: 1)
    alone = convert(specimen, tmp_path / "alone.gguf", MODEL)
    monkeypatch.setattr("converter.writing.gguf_file.n_threads", lambda: n)
    together = convert(specimen, tmp_path / "together.gguf", MODEL)
    assert (tmp_path / "together.gguf").read_bytes() == (tmp_path / "alone.gguf").read_bytes()
    assert together.files[0].kept == alone.files[0].kept
