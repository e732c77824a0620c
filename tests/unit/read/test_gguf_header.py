"""The header scan against gguf's own reader, and files that are not what they should be."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants

from converter.errors import COULD_NOT, ConverterError
from converter.read.gguf_header import GgufArray, read_gguf_header, read_scalars, read_strings

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q6_K")


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    writer.add_name("Größe")
    writer.add_block_count(3)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_bool("general.flag", val=True)
    writer.add_token_list(["<s>", "ä", ""])
    writer.add_token_scores([0.5, -1.0, 2.0])
    for name in TYPES:
        values = np.random.default_rng(0).standard_normal((3, 256)).astype(np.float32)
        quantized = GGMLQuantizationType[name]
        data = quants.quantize(values, quantized) if name != "Q6_K" else np.zeros((3, 210), np.uint8)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_scan_agrees_with_ggufs_reader(gguf: Path) -> None:
    header, oracle = read_gguf_header(gguf), GGUFReader(gguf)
    assert header.alignment == oracle.alignment == 64
    assert [entry.key for entry in header.key_values] == [key for key in oracle.fields if not key.startswith("GGUF.")]
    for tensor, theirs in zip(header.tensors, oracle.tensors, strict=True):
        assert (tensor.name, tensor.type.name) == (theirs.name, theirs.tensor_type.name)
        assert tensor.shape == tuple(reversed([int(n) for n in theirs.shape]))
        assert (tensor.offset, tensor.nbytes) == (theirs.data_offset, theirs.n_bytes)
    del oracle  # it maps the file


def test_values_are_decoded_and_arrays_on_demand(gguf: Path) -> None:
    header = read_gguf_header(gguf)
    assert header.kv["general.name"] == "Größe"
    assert header.kv["llama.block_count"] == 3
    assert header.kv["general.flag"] is True
    tokens, scores = header.kv["tokenizer.ggml.tokens"], header.kv["tokenizer.ggml.scores"]
    assert isinstance(tokens, GgufArray)
    assert isinstance(scores, GgufArray)
    assert list(read_strings(gguf, tokens)) == ["<s>", "ä", ""]
    assert read_scalars(gguf, scores) == (0.5, -1.0, 2.0)


def test_an_entrys_bytes_are_the_whole_entry(gguf: Path) -> None:
    header = read_gguf_header(gguf)
    assert header.key_values[0].begin == 24
    for entry, following in zip(header.key_values, header.key_values[1:], strict=False):
        assert entry.end == following.begin


def _dimensions(data: bytes) -> bytes:
    """No dimensions for a tensor of blocks: its rows are not whole blocks."""
    at = data.index(b"Q8_0.weight") + len(b"Q8_0.weight")
    return data[:at] + struct.pack("<I", 0) + data[at + 20 :]


def _only(entry: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:8] + struct.pack("<QQ", 0, 1) + entry + bytes(64)


def _key(name: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name


SPOILT: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "another magic": (lambda data: b"GGML" + data[4:], "not a GGUF"),
    "an empty file": (lambda _: b"", "not a GGUF"),
    "big-endian": (lambda data: data[:4] + struct.pack(">I", 3) + data[8:], "big-endian"),
    "version 1": (lambda data: data[:4] + struct.pack("<I", 1) + data[8:], "version 1"),
    "cut in the metadata": (lambda data: data[:200], "past the end"),
    "cut in the tensors": (lambda data: data[:-300], "truncated"),
    "many tensors": (lambda data: data[:8] + struct.pack("<Q", 1 << 60) + data[16:], "more than"),
    "many entries": (lambda data: data[:16] + struct.pack("<Q", 1 << 60) + data[24:], "more than"),
    "more entries than anything has": (
        lambda data: data[:16] + struct.pack("<Q", 20_001) + data[24:] + bytes(200_000),
        "at most 20000",
    ),
    "one tensor twice": (lambda data: data.replace(b"F16.weight", b"F32.weight", 1), "the tensor 'F32.weight' twice"),
    "one key twice": (
        lambda data: data.replace(_key(b"general.flag"), _key(b"general.name"), 1),
        "the key 'general.name' twice",
    ),
    "a key without a name": (_only(_key(b"") + struct.pack("<IB", 7, 1)), "a key without a name"),
    "arrays of arrays": (_only(_key(b"a") + struct.pack("<IIQIQ", 9, 9, 1, 4, 0)), "array 'a' has the type 9"),
    "a string beyond the end": (_only(_key(b"a") + struct.pack("<IQ", 8, 1 << 60)), "past the end"),
    "a string of an array beyond the end": (_only(_key(b"a") + struct.pack("<IIQQ", 9, 8, 2, 1 << 60)), "past the end"),
    "blocks without rows": (_dimensions, "Q8_0"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_file_is_refused(name: str, gguf: Path) -> None:
    spoil, message = SPOILT[name]
    gguf.write_bytes(spoil(gguf.read_bytes()))
    with pytest.raises(ConverterError, match=message) as caught:
        read_gguf_header(gguf)
    assert caught.value.status == COULD_NOT


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConverterError) as caught:
        read_gguf_header(tmp_path / "nowhere.gguf")
    assert caught.value.status == COULD_NOT
