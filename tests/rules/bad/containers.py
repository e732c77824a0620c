"""Spoilt containers: the safetensors file, its index, what is a pickle."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.rules.bad.registry import bad
from tests.rules.specimens import FFN, HIDDEN, RANK, UP, Specimen, tensor


@bad("ST001")
def a_merged_model_with_the_adapters_config(it: Specimen, _: Path) -> None:
    it.write()
    it.weights.rename(it.weights.with_name("model.safetensors"))


@bad("ST001")
def no_weights(it: Specimen, _: Path) -> None:
    it.write()
    it.weights.unlink()


@bad("ST001")
def a_broken_link(it: Specimen, _: Path) -> None:
    it.write()
    it.weights.unlink()
    it.weights.symlink_to(it.directory / "blobs" / "gone")


@bad("ST002")
def cut_in_its_header(it: Specimen, _: Path) -> None:
    it.write()
    it.weights.write_bytes(it.weights.read_bytes()[:100])


@bad("ST002")
def an_empty_file(it: Specimen, _: Path) -> None:
    it.write()
    it.weights.write_bytes(b"")


@bad("ST002")
def a_header_that_is_not_json(it: Specimen, _: Path) -> None:
    it.write_header("{'single': quotes}", 0)


@bad("ST002")
def a_header_that_is_a_list(it: Specimen, _: Path) -> None:
    it.write_header("[]", 0)


@bad("ST003")
def a_key_twice(it: Specimen, _: Path) -> None:
    it.config["target_modules"] = ["layers.1.mlp.down_proj"]
    a = f'"{UP}.lora_A.weight":{{"dtype":"F32","shape":[{RANK},{FFN}],"data_offsets":'
    b = f'"{UP}.lora_B.weight":{{"dtype":"F32","shape":[{HIDDEN},{RANK}],"data_offsets":'
    size_a, size_b = 4 * RANK * FFN, 4 * RANK * HIDDEN
    ends = (size_a, 2 * size_a, 2 * size_a + size_b)
    header = f"{{{a}[0,{ends[0]}]}},{a}[{ends[0]},{ends[1]}]}},{b}[{ends[1]},{ends[2]}]}}}}"
    it.write_header(header, ends[2])
    data = it.weights.read_bytes()[: -ends[2]]
    it.weights.write_bytes(data + 2 * tensor(RANK, FFN)[2] + tensor(HIDDEN, RANK)[2])


def _with_offsets(it: Specimen, change: Callable[[dict[str, list[int]]], None], n_more: int = 0) -> None:
    """Rewrite the header with other offsets, and the data with more or fewer bytes."""
    it.write()
    raw = it.weights.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    change({key: entry["data_offsets"] for key, entry in header.items() if key != "__metadata__"})
    encoded = json.dumps(header).encode()
    data = raw[8 + length :] + bytes(n_more)
    it.weights.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)


def _first_and_last(offsets: dict[str, list[int]]) -> tuple[list[int], list[int]]:
    return next(iter(offsets.values())), list(offsets.values())[-1]


@bad("ST004")
def trailing_bytes(it: Specimen, _: Path) -> None:
    _with_offsets(it, lambda _: None, n_more=8)


@bad("ST004")
def a_hole(it: Specimen, _: Path) -> None:
    def change(offsets: dict[str, list[int]]) -> None:
        _, last = _first_and_last(offsets)
        last[:] = [last[0] + 8, last[1] + 8]

    _with_offsets(it, change, n_more=8)


@bad("ST004")
def an_overlap(it: Specimen, _: Path) -> None:
    it.tensors = {key: it.tensors[key] for key in sorted(it.tensors, key=lambda key: "lora_B" in key)}

    def change(offsets: dict[str, list[int]]) -> None:
        same_size = [offset for key, offset in offsets.items() if "q_proj.lora_A" in key]
        same_size[1][:] = same_size[0]

    _with_offsets(it, change)


@bad("ST004")
def an_end_before_its_begin(it: Specimen, _: Path) -> None:
    def change(offsets: dict[str, list[int]]) -> None:
        _, last = _first_and_last(offsets)
        last.reverse()

    _with_offsets(it, change)


@bad("ST005")
def fewer_bytes_than_the_shape_needs(it: Specimen, _: Path) -> None:
    dtype, shape, data = it.tensors[f"{UP}.lora_B.weight"]
    it.tensors[f"{UP}.lora_B.weight"] = (dtype, shape, data[:-4])
    it.write()


@bad("ST006")
def an_unknown_type(it: Specimen, _: Path) -> None:
    shape, data = it.tensors[f"{UP}.lora_B.weight"][1:]
    it.tensors[f"{UP}.lora_B.weight"] = ("F31", shape, data)
    it.write()


@bad("ST006")
def an_entry_without_a_shape(it: Specimen, _: Path) -> None:
    it.write_header('{"a.lora_A.weight":{"dtype":"F32","data_offsets":[0,0]}}', 0)


@bad("ST006")
def a_negative_offset(it: Specimen, _: Path) -> None:
    it.write_header('{"a.lora_A.weight":{"dtype":"F32","shape":[1,1],"data_offsets":[-4,0]}}', 0)


@bad("ST006")
def a_size_beyond_measure(it: Specimen, _: Path) -> None:
    it.write_header(f'{{"a.lora_A.weight":{{"dtype":"F32","shape":[{10**400},1],"data_offsets":[0,0]}}}}', 0)


@bad("ST006")
def metadata_of_numbers(it: Specimen, _: Path) -> None:
    it.metadata = {"format": 1}  # type: ignore[dict-item]  # the fault under test
    it.write()


@bad("ST007")
def a_git_lfs_pointer(it: Specimen, _: Path) -> None:
    it.write()
    it.weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", encoding="ascii")


@bad("ST008")
def a_missing_shard(it: Specimen, _: Path) -> None:
    it.write_shards()
    (it.directory / "part-2.safetensors").unlink()


@bad("ST008")
def a_key_in_another_shard(it: Specimen, _: Path) -> None:
    index = it.write_shards()
    key = f"{UP}.lora_B.weight"
    it.write_index(index | {key: next(shard for shard in index.values() if shard != index[key])})


@bad("ST008")
def a_key_that_no_shard_has(it: Specimen, _: Path) -> None:
    index = it.write_shards()
    it.write_index(index | {"more": index[f"{UP}.lora_B.weight"]})


@bad("ST008")
def a_key_that_the_index_lacks(it: Specimen, _: Path) -> None:
    index = it.write_shards()
    del index[f"{UP}.lora_B.weight"]
    it.write_index(index)


@bad("ST008")
def an_index_of_numbers(it: Specimen, _: Path) -> None:
    it.write_shards()
    it.write_index({"a": 1})


@bad("ST009")
def no_tensors(it: Specimen, _: Path) -> None:
    it.tensors = {}
    it.write()


@bad("ST010")
def factors_not_gathered(it: Specimen, _: Path) -> None:
    it.tensors = dict.fromkeys(it.tensors, ("F32", (0, 0), b""))
    it.write()


@bad("ST011")
def a_truncated_file(it: Specimen, _: Path) -> None:
    it.write()
    it.weights.write_bytes(it.weights.read_bytes()[:-1])


@bad("ST012")
def a_part_of_the_training_in_a_file_of_its_own(it: Specimen, _: Path) -> None:
    it.write()
    (it.directory / "trainable_params.bin").write_bytes(b"weights")


@bad("SC001")
def a_pickle(it: Specimen, _: Path) -> None:
    it.write()
    it.weights.rename(it.directory / "adapter_model.bin")


@bad("SC002")
def a_shard_elsewhere(it: Specimen, _: Path) -> None:
    index = it.write_shards()
    it.write_index(index | {"passwords": "../../etc/passwd"})


@bad("SC002")
def a_shard_with_a_name_that_no_file_can_have(it: Specimen, _: Path) -> None:
    index = it.write_shards()
    it.write_index(index | {"more": "\ud800.safetensors"})


@bad("SC003")
def a_library_to_import(it: Specimen, _: Path) -> None:
    it.config["auto_mapping"] = {"base_model_class": "Model", "parent_library": "transformers_modules.evil"}
    it.write()


@bad("SC003")
def another_megatron(it: Specimen, _: Path) -> None:
    it.config["megatron_core"] = "megatron_x.core"
    it.write()
