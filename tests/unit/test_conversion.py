"""The library entry: what is refused, what is recorded, what is protected and what is used again."""

import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from converter import __version__
from converter.conversion import Refused, plan, write
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import Deployment
from converter.errors import COULD_NOT, JUDGED_BAD, ConverterError
from converter.fingerprint import KEY as FINGERPRINT_KEY
from converter.fingerprint import fingerprint
from converter.planning.plan_data import plan_digest
from fixtures.generated import write_safetensors
from tests.rules.bad.checkpoints import weights, write_checkpoint
from tests.rules.specimens import (
    EMBEDDING,
    HEAD,
    HIDDEN,
    PREFIX,
    UP,
    Specimen,
    embedding_lora,
    head_lora,
    tensor,
    write_huggingface,
)
from tests.unit.conversion import (
    LORA,
    MODEL,
    UNTIED_LORA,
    UNTIED_MODEL,
    convert,
    metadata_of,
    tensors_of,
    values_of,
    write_base,
)


@pytest.fixture
def specimen(tmp_path: Path) -> Specimen:
    return Specimen(tmp_path / "adapter", write_base(tmp_path / "base.gguf"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def scaled(stored: tuple[str, tuple[int, ...], bytes], factor: float) -> tuple[str, tuple[int, ...], bytes]:
    dtype, shape, data = stored
    return dtype, shape, (np.frombuffer(data, "<f4") * np.float32(factor)).tobytes()


# --- Refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deployment", [LORA, MODEL], ids=lambda it: it.kind)
def test_what_a_rule_forbids_is_refused(deployment: Deployment, specimen: Specimen, tmp_path: Path) -> None:
    specimen.tensors |= head_lora()
    with pytest.raises(Refused, match=f"refused for {deployment.options}: HD001$") as refused:
        convert(specimen, tmp_path / "output.gguf", deployment)
    assert refused.value.status == JUDGED_BAD
    assert [finding.code for finding in refused.value.report.stopping] == ["HD001"]
    assert not (tmp_path / "output.gguf").exists()


def test_numbers_are_judged_too(specimen: Specimen, tmp_path: Path) -> None:
    specimen.tensors[f"{UP}.lora_A.weight"] = scaled(tensor(4, 96), float("nan"))
    with pytest.raises(Refused, match="NM001"):
        convert(specimen, tmp_path / "lora.gguf")


def test_a_config_alone_makes_loras_only(specimen: Specimen, tmp_path: Path) -> None:
    paths = tmp_path / "of-gguf.gguf", tmp_path / "lora.gguf"
    convert(specimen, paths[0])
    specimen.base = write_huggingface(tmp_path / "base")
    convert(specimen, paths[1])
    of_gguf, of_config = (metadata_of(path) for path in paths)
    assert of_gguf.pop(FINGERPRINT_KEY)  # a config alone has no norms
    assert of_config == of_gguf
    numbers = [{name: tensor.data.tobytes() for name, tensor in tensors_of(path).items()} for path in paths]
    assert numbers[0] == numbers[1]
    for deployment in (MODEL, UNTIED_LORA, UNTIED_MODEL):
        with pytest.raises(Refused, match="BM040"):
            convert(specimen, tmp_path / "output.gguf", deployment)


def test_a_huggingface_base_makes_models(specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_checkpoint(tmp_path / "base", _name_or_path="me/tiny")
    for deployment in (MODEL, UNTIED_MODEL, UNTIED_LORA):
        files = convert(specimen, tmp_path / deployment.kind, deployment).files
        metadata = metadata_of(files[0].path)
        assert metadata["general.architecture"] == "llama"
        assert metadata["general.name"] == "me/tiny"
        assert metadata["tokenizer.ggml.tokens"] == ["<|end|>", "a", "b", "ab", *(f"[PAD{i}]" for i in range(4, 48))]
        assert ("output.weight" in tensors_of(files[0].path)) == deployment.untie


def test_a_huggingface_base_is_written_as_it_is_stored(specimen: Specimen, tmp_path: Path) -> None:
    """What nothing changes keeps its type and its bits; vectors are F32."""
    specimen.base = write_checkpoint(tmp_path / "base")
    stored = weights()
    tensors = tensors_of(convert(specimen, tmp_path / "model.gguf", MODEL).files[0].path)
    for name, key in {"ffn_up": "mlp.up_proj", "attn_output": "self_attn.o_proj"}.items():
        assert tensors[f"blk.1.{name}.weight"].data.tobytes() == stored[f"model.layers.1.{key}.weight"][2]
    assert tensors["blk.0.attn_norm.weight"].tensor_type == GGMLQuantizationType.F32


def put(base: Path | None, tensor: str, data: bytes) -> None:
    """Overwrite the last bytes of a tensor of the base."""
    assert base
    stored = tensors_of(base)[tensor]
    with base.open("r+b") as file:
        file.seek(stored.data_offset + stored.n_bytes - len(data))
        file.write(data)


def test_a_value_beyond_the_type_stops_the_run(specimen: Specimen, tmp_path: Path) -> None:
    put(specimen.base, "blk.1.ffn_down.weight", struct.pack("<f", 7e4))
    deployment = Deployment("model", outtype="f16")
    with pytest.raises(Refused, match="NM010") as refused:
        convert(specimen, tmp_path / "model.gguf", deployment)
    finding = refused.value.report.findings[-1]
    assert (finding.code, finding.where) == ("NM010", "blk.1.ffn_down.weight")
    assert finding.message.endswith("--outtype f32")
    assert refused.value.status == JUDGED_BAD
    assert not (tmp_path / "model.gguf").exists()
    convert(specimen, tmp_path / "model.gguf", Deployment("model", outtype="f32"))


NAN, INFINITY, HUGE = (struct.pack("<f", value) for value in (float("nan"), float("-inf"), 3e38))
# Of each: the number's bytes, at the end of a tensor that the adapter doesn't touch, or of one that it does.
BROKEN = [(name, data) for name in ("token_embd", "blk.1.ffn_down", "output_norm") for data in (NAN, INFINITY, HUGE)]


@pytest.mark.parametrize(("name", "data"), BROKEN)
def test_a_base_that_is_broken_is_no_fault_of_the_adapter(
    name: str, data: bytes, specimen: Specimen, tmp_path: Path
) -> None:
    put(specimen.base, f"{name}.weight", data)
    for outtype in ("auto", "f16", "q8_0"):
        with pytest.raises(ConverterError, match=rf"^NM012: {name}\.weight: the base's own numbers") as refused:
            convert(specimen, tmp_path / "model.gguf", Deployment("model", outtype=outtype))
        assert refused.value.status == COULD_NOT
        assert not (tmp_path / "model.gguf").exists()
    convert(specimen, tmp_path / "lora.gguf")  # which has nothing of the base


def test_a_directory_that_is_broken_is_told_too(specimen: Specimen, tmp_path: Path) -> None:
    """Of a checkpoint rows are put in order, and vectors become F32: these are no copies."""
    for key in ("model.layers.0.self_attn.k_proj.weight", "model.norm.weight"):
        specimen.base = write_checkpoint(tmp_path / "base")
        dtype, shape, values = weights()[key]
        write_safetensors(specimen.base / "model.safetensors", {**weights(), key: (dtype, shape, values[:-4] + NAN)})
        with pytest.raises(ConverterError, match=r"^NM012: "):
            convert(specimen, tmp_path / "model.gguf", MODEL)


def test_a_delta_that_rounding_loses_stops_the_run(specimen: Specimen, tmp_path: Path) -> None:
    specimen.config["lora_alpha"] = 1e-5
    with pytest.raises(Refused, match="NM011") as refused:
        convert(specimen, tmp_path / "model.gguf", Deployment("model", outtype="q8_0"))
    assert refused.value.report.findings[-1].message.startswith("rounding keeps ")
    assert refused.value.status == JUDGED_BAD
    assert not (tmp_path / "model.gguf").exists()
    convert(specimen, tmp_path / "model.gguf", Deployment("model", outtype="f32"))


@pytest.mark.parametrize(
    ("deployment", "saves_a_norm", "ways"),
    [
        (Deployment("model", outtype="q8_0"), False, "--outtype f16 or --outtype f32 or --to lora"),
        (Deployment("model", outtype="f16"), False, "--outtype f32 or --to lora"),
        (Deployment("model", untie=True, outtype="f16"), False, "--outtype f32 or --untie --to lora"),
        (Deployment("model", outtype="f16"), True, "--outtype f32"),  # LO007 forbids a LoRA file
    ],
)
def test_only_what_is_open_is_advised(
    deployment: Deployment, saves_a_norm: bool, ways: str, specimen: Specimen, tmp_path: Path
) -> None:
    specimen.config["lora_alpha"] = 1e-6
    if saves_a_norm:
        specimen.config["modules_to_save"] = ["norm"]
        specimen.tensors[f"{PREFIX}.model.norm.weight"] = tensor(HIDDEN)
    with pytest.raises(Refused, match="NM011") as refused:
        convert(specimen, tmp_path / "model.gguf", deployment)
    assert f"; use {ways}; nothing was written" in refused.value.report.findings[-1].message


@pytest.mark.parametrize("deployment", [LORA, UNTIED_LORA], ids=lambda it: it.kind)
def test_factors_can_not_be_quantised(deployment: Deployment, specimen: Specimen, tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match="factors are not quantised"):
        convert(specimen, tmp_path / "output", Deployment(deployment.to, deployment.untie, "q8_0"))
    assert not (tmp_path / "output").exists()


# --- Recorded ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deployment", [LORA, MODEL], ids=lambda it: it.kind)
def test_a_file_says_what_it_was_made_from(deployment: Deployment, specimen: Specimen, tmp_path: Path) -> None:
    planned = convert(specimen, tmp_path / "output.gguf", deployment).plan
    found = metadata_of(tmp_path / "output.gguf")
    lines = "".join(f"{sha256(path)}  {path.name}\n" for path in (specimen.config_path, specimen.weights))
    assert found["adapter_to_gguf.version"] == __version__
    assert found["adapter_to_gguf.adapter.sha256"] == hashlib.sha256(lines.encode()).hexdigest()
    assert found["adapter_to_gguf.plan.sha256"] == plan_digest(planned)
    assert specimen.base
    assert found[FINGERPRINT_KEY] == fingerprint(read_base_model(specimen.base))


def test_shards_are_in_the_digest(specimen: Specimen, tmp_path: Path) -> None:
    specimen.write_shards()
    assert specimen.base
    adapter, base = read_adapter(specimen.directory), read_base_model(specimen.base)
    write(plan(adapter, base, LORA), tmp_path / "lora.gguf")
    names = ("adapter_config.json", "part-1.safetensors", "part-2.safetensors")
    lines = "".join(f"{sha256(specimen.directory / name)}  {name}\n" for name in names)
    expected = hashlib.sha256(lines.encode()).hexdigest()
    assert metadata_of(tmp_path / "lora.gguf")["adapter_to_gguf.adapter.sha256"] == expected


def test_an_untied_base_names_its_source_alone(specimen: Specimen, tmp_path: Path) -> None:
    specimen.tensors |= head_lora()
    convert(specimen, tmp_path / "both", UNTIED_LORA)
    found = metadata_of(tmp_path / "both" / "untied-base.gguf")
    assert specimen.base
    assert {key: value for key, value in found.items() if key.startswith("adapter_to_gguf.")} == {
        "adapter_to_gguf.version": __version__,
        "adapter_to_gguf.source.sha256": sha256(specimen.base),
    }


def test_a_chain_of_conversions_has_one_record(specimen: Specimen, tmp_path: Path) -> None:
    """SFT, then DPO on the merged model: all adapters are named, in their order; none of them goes in twice."""
    alphas, digests = (16, 8, 4), []
    for n, alpha in enumerate(alphas):
        specimen.config["lora_alpha"] = alpha
        convert(specimen, tmp_path / f"{n}.gguf", MODEL)
        specimen.base = tmp_path / f"{n}.gguf"
        digests.append(metadata_of(specimen.base)["adapter_to_gguf.adapter.sha256"])
    once, last = (metadata_of(tmp_path / name) for name in ("0.gguf", "2.gguf"))
    assert last["adapter_to_gguf.merged.sha256"] == " ".join(map(str, digests[:2]))
    assert last.keys() - once.keys() == {"adapter_to_gguf.merged.sha256"}
    for alpha in alphas:
        specimen.config["lora_alpha"] = alpha
        with pytest.raises(Refused, match="BM012"):
            convert(specimen, tmp_path / "again.gguf", MODEL)


def test_each_merged_tensor_is_measured(specimen: Specimen, tmp_path: Path) -> None:
    (written,) = convert(specimen, tmp_path / "model.gguf", MODEL).files
    assert [kept.tensor.split(".")[2] for kept in written.kept] == ["attn_q", "attn_v", "ffn_down"] * 2
    assert all(kept.share == pytest.approx(1, abs=1e-3) for kept in written.kept)


def test_progress_counts_every_byte(specimen: Specimen, tmp_path: Path) -> None:
    specimen.write()
    assert specimen.base
    adapter, base = read_adapter(specimen.directory), read_base_model(specimen.base)
    planned, counts = plan(adapter, base, MODEL), list[int]()
    write(planned, tmp_path / "model.gguf", counts.append)
    assert sum(counts) == sum(tensor.nbytes for file in planned.files for tensor in file.tensors)


# --- Inputs are safe --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["base.gguf", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"])
def test_no_input_is_written_over(name: str, specimen: Specimen, tmp_path: Path) -> None:
    specimen.write()
    before = sha256(tmp_path / name)
    (tmp_path / "link.gguf").hardlink_to(tmp_path / name)
    (tmp_path / "symbolic.gguf").symlink_to(tmp_path / name)
    for output in (name, "link.gguf", "symbolic.gguf"):
        with pytest.raises(ConverterError, match="is an input of this conversion") as refused:
            convert(specimen, tmp_path / output, MODEL)
        assert refused.value.status == COULD_NOT
    assert sha256(tmp_path / name) == before


def test_no_file_of_a_huggingface_base_is_written_over(specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_huggingface(tmp_path / "base")
    with pytest.raises(ConverterError, match="is an input of this conversion"):
        convert(specimen, tmp_path / "base" / "config.json")


def test_every_shard_of_a_split_base_is_safe(specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_base(tmp_path / "split.gguf", tensors_per_file=3)
    with pytest.raises(ConverterError, match="is an input of this conversion"):
        convert(specimen, tmp_path / "split-00002-of-00004.gguf", MODEL)


@pytest.mark.parametrize("before", [b"", b"GGUF of an older conversion"])
def test_an_older_conversion_is_replaced(before: bytes, specimen: Specimen, tmp_path: Path) -> None:
    (tmp_path / "lora.gguf").write_bytes(before)
    convert(specimen, tmp_path / "lora.gguf")
    assert len((tmp_path / "lora.gguf").read_bytes()) > len(before)


@pytest.mark.parametrize("name", ["base/tokenizer.json", "notes.txt", "base/README.md"])
def test_a_file_that_is_no_gguf_is_not_replaced(name: str, specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_huggingface(tmp_path / "base")
    (tmp_path / name).write_bytes(b"of somebody's own")
    with pytest.raises(ConverterError, match=r"is there already, and is no GGUF|is an input of this conversion"):
        convert(specimen, tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"of somebody's own"


def test_a_pipe_is_not_replaced(specimen: Specimen, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for name in ("pipe", "link"):
        with pytest.raises(ConverterError, match="is no plain file"):
            convert(specimen, tmp_path / name)
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("name", ["base.gguf", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"])
@pytest.mark.parametrize("change", ["touched", "replaced", "gone"])
def test_an_input_that_is_changed_meanwhile_is_told(name: str, change: str, specimen: Specimen, tmp_path: Path) -> None:
    specimen.write()
    assert specimen.base
    adapter, base = read_adapter(specimen.directory), read_base_model(specimen.base)
    path, counts = tmp_path / name, list[int]()

    def changes(n: int) -> None:
        if not counts:
            beside = path.with_name("beside")
            beside.write_bytes(path.read_bytes())
            if change == "gone":
                path.unlink()
            else:  # at once: another thread may be reading
                beside.replace(path)
        counts.append(n)

    with plan(adapter, base, MODEL) as planned, pytest.raises(ConverterError, match=r"was changed|can't be read"):
        write(planned, tmp_path / "model.gguf", changes)
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize("deployment", [MODEL, UNTIED_LORA], ids=lambda it: it.kind)
def test_a_base_that_is_gone_is_told(deployment: Deployment, specimen: Specimen, tmp_path: Path) -> None:
    specimen.write()
    assert specimen.base
    adapter, base = read_adapter(specimen.directory), read_base_model(specimen.base)
    planned = plan(adapter, base, deployment)
    specimen.base.unlink()
    with pytest.raises(ConverterError, match=r"base\.gguf: can't be read: No such file or directory$"):
        write(planned, tmp_path / "output")
    assert not [path for path in tmp_path.rglob("*.gguf") if path.is_file()]


# --- The untied base serves any adapter -------------------------------------------------------------------------------


def test_an_untied_base_is_made_once(specimen: Specimen, tmp_path: Path) -> None:
    specimen.tensors |= head_lora()
    first = convert(specimen, tmp_path / "both", UNTIED_LORA)
    made = (tmp_path / "both" / "untied-base.gguf").stat()
    specimen.tensors |= embedding_lora()
    second = convert(specimen, tmp_path / "both", UNTIED_LORA)
    assert [written.reused for written in (*first.files, *second.files)] == [False, False, True, False]
    now = (tmp_path / "both" / "untied-base.gguf").stat()
    assert (now.st_ino, now.st_mtime_ns) == (made.st_ino, made.st_mtime_ns)  # reading it is no fault
    assert values_of(tmp_path / "both" / "lora.gguf", "token_embd.weight.lora_a").size


@pytest.mark.parametrize("place", [0.5, 0.999])
def test_a_damaged_untied_base_is_not_served(place: float, specimen: Specimen, tmp_path: Path) -> None:
    specimen.tensors |= head_lora()
    convert(specimen, tmp_path / "both", UNTIED_LORA)
    made = tmp_path / "both" / "untied-base.gguf"
    content = bytearray(made.read_bytes())
    content[int(len(content) * place)] ^= 1
    made.write_bytes(content)
    with pytest.raises(ConverterError, match="is damaged, or not the untied copy of this base"):
        convert(specimen, tmp_path / "both", UNTIED_LORA)


@pytest.mark.parametrize("other", ["truncated", "another base's", "no GGUF of ours"])
def test_another_file_of_that_name_is_refused(other: str, specimen: Specimen, tmp_path: Path) -> None:
    specimen.tensors |= head_lora()
    convert(specimen, tmp_path / "both", UNTIED_LORA)
    untied = tmp_path / "both" / "untied-base.gguf"
    match other:
        case "truncated":
            untied.write_bytes(untied.read_bytes()[:-32])
        case "another base's":
            assert specimen.base
            data = bytearray(specimen.base.read_bytes())
            data[-1] ^= 1
            specimen.base.write_bytes(data)
        case _:
            assert specimen.base
            untied.write_bytes(specimen.base.read_bytes())
    with pytest.raises(ConverterError, match=r"untied-base\.gguf: is not the untied copy of this base"):
        convert(specimen, tmp_path / "both", UNTIED_LORA)


def test_an_untied_base_of_split_files_names_them_all(specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_base(tmp_path / "split.gguf", tensors_per_file=3)
    specimen.tensors |= head_lora()
    convert(specimen, tmp_path / "both", UNTIED_LORA)
    lines = "".join(f"{sha256(path)}  {path.name}\n" for path in sorted(tmp_path.glob("split-*.gguf")))
    found = metadata_of(tmp_path / "both" / "untied-base.gguf")
    assert found["adapter_to_gguf.source.sha256"] == hashlib.sha256(lines.encode()).hexdigest()


def test_saved_ends_need_a_model(specimen: Specimen, tmp_path: Path) -> None:
    for module, code in ((HEAD, "HD002"), (EMBEDDING, "HD004")):
        it = Specimen(tmp_path / module, specimen.base)
        it.tensors[f"{module}.weight"] = tensor(48, 32)
        it.config["modules_to_save"] = [module.rpartition(".")[2]]
        with pytest.raises(Refused, match=code):
            convert(it, tmp_path / "both", UNTIED_LORA)
