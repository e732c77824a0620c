"""Adapters that were made to waste time and memory, or to pass here where safetensors refuses them.

Each is judged by the command itself, within 2 s of CPU and 200 MB of memory.
"""

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from converter.errors import FINE, JUDGED_BAD
from fixtures.generated import write_safetensors
from tests.rules.specimens import Specimen

MODULE = "base_model.model.model.layers.{}.self_attn.q_proj"
ENTRY = '"dtype":"F32","shape":[1,1],"data_offsets":[0,4]'


def header(raw: bytes | str) -> Callable[[Specimen], None]:
    data = raw.encode() if isinstance(raw, str) else raw

    def spoil(it: Specimen) -> None:
        it.weights.write_bytes(struct.pack("<Q", len(data)) + data + bytes(4))

    return spoil


def file(name: str, data: bytes) -> Callable[[Specimen], None]:
    def spoil(it: Specimen) -> None:
        (it.directory / name).write_bytes(data)

    return spoil


def config(raw: bytes | str) -> Callable[[Specimen], None]:
    return file("adapter_config.json", raw.encode() if isinstance(raw, str) else raw)


def tokenizer(raw: bytes) -> Callable[[Specimen], None]:
    return file("tokenizer.json", raw)


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Specimen], None]:
    def spoil(it: Specimen) -> None:
        (it.directory / name).unlink(missing_ok=True)
        make(it.directory / name)

    return spoil


def zipped(n_entries: int, data: bytes) -> bytes:
    """A zip of pickles; a list of entries is written by hand where there are many."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("0.pkl", data)
    whole = stream.getvalue()
    begin, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    entries = whole[begin:end] * n_entries
    n = min(n_entries, 0xFFFF)
    return whole[:begin] + entries + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, n, n, len(entries), begin, 0)


def zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def layers(*numbers: int) -> Callable[[Specimen], None]:
    factor = ("F32", (4, 4), bytes(64))
    tensors = {f"{MODULE.format(n)}.lora_{ab}.weight": factor for n in numbers for ab in "AB"}
    return lambda it: write_safetensors(it.weights, tensors)


def shards(n: int) -> Callable[[Specimen], None]:
    def spoil(it: Specimen) -> None:
        it.weights.unlink()
        it.write_index({f"k{i}": f"s{i}.safetensors" for i in range(n)})

    return spoil


def fields(**changes: object) -> Callable[[Specimen], None]:
    def spoil(it: Specimen) -> None:
        it.config |= changes
        it.config_path.write_text(json.dumps(it.config), encoding="utf-8")

    return spoil


def shaped(*shape: int) -> str:
    return json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}})


SURROGATE = "\\ud800"
HOSTILE: dict[str, tuple[str, Callable[[Specimen], None]]] = {
    "weights are a pipe": ("ST002", replaced("adapter_model.safetensors", os.mkfifo)),
    "weights are a directory": ("ST002", replaced("adapter_model.safetensors", os.mkdir)),
    "weights are a device": ("ST002", replaced("adapter_model.safetensors", zero)),
    "config is a pipe": ("CF002", replaced("adapter_config.json", os.mkfifo)),
    "config is a device": ("CF002", replaced("adapter_config.json", zero)),
    "tokenizer is a pipe": ("ST020", replaced("tokenizer.json", os.mkfifo)),
    "record is a pipe": ("", replaced("base_fingerprint.json", os.mkfifo)),
    "header of empty lists": ("ST002", header(b'{"a":[' + b"[]," * 8_000_000 + b"[]]}")),
    "header of objects": ("ST006", header(b'{"a":[' + b'{"a":0},' * 450_000 + b"0]}")),
    "header too long": ("ST002", header(b'{"a":"' + b"x" * 25_000_000 + b'"}')),
    "header nested": ("ST002", header(b"[" * 900_000)),
    "too many tensors": ("ST002", header("{" + ",".join(f'"{i}":{{}}' for i in range(80_001)) + "}")),
    "a key of prefixes": ("LO004", header(f'{{"{"base_model.model." * 300_000}q.hada_w1_a":{{{ENTRY}}}}}')),
    "100,000 dimensions": ("ST006", header(shaped(*[1 << 62] * 100_000))),
    "nine dimensions": ("ST006", header(shaped(*[1] * 9))),
    "two lots of metadata": ("ST006", header(f'{{"__metadata__":{{}},"__metadata__":{{}},"a":{{{ENTRY}}}}}')),
    "an offset of -0": ("ST006", header('{"a":{"dtype":"F32","shape":[1,1],"data_offsets":[-0,4]}}')),
    "a byte order mark": ("ST002", header(b"\xef\xbb\xbf" + f'{{"a":{{{ENTRY}}}}}'.encode())),
    "UTF-16": ("ST002", header(f'{{"a":{{{ENTRY}}}}}'.encode("utf-16"))),
    "UTF-32": ("ST002", header(f'{{"a":{{{ENTRY}}}}}'.encode("utf-32"))),
    "NaN": ("ST002", header(f'{{"__metadata__":{{"a":NaN}},"a":{{{ENTRY}}}}}')),
    "a surrogate in metadata": ("ST002", header(f'{{"__metadata__":{{"a":"{SURROGATE}"}},"a":{{{ENTRY}}}}}')),
    "a surrogate in a key": ("ST002", header(f'{{"{SURROGATE}":{{{ENTRY}}}}}')),
    "a layer of 5,000 digits": ("LO004", header(f'{{"{MODULE.format("9" * 5000)}.lora_A.weight":{{{ENTRY}}}}}')),
    "a layer of 200 digits": ("LO001", header(f'{{"{MODULE.format("9" * 200)}.lora_A.weight":{{{ENTRY}}}}}')),
    "a gap of 10^9": ("", layers(0, 10**9)),
    "a million pickles in a file": ("SC005", file("optimizer.pt", b"\x80\x02N." * 1_000_000)),
    "a zip of 200 large pickles": ("SC005", file("optimizer.pt", zipped(200, b"\x80\x02N." + bytes(5_000_000)))),
    "a zip of 300,000 names": ("SC005", file("optimizer.pt", zipped(300_000, b""))),
    "5,000 gaps": ("", layers(*range(0, 10_000, 2), *range(1, 21, 2))),
    "config of empty lists": ("CF002", config(b'{"a":[' + b"[]," * 660_000 + b"[]]}")),
    "60,000 fields, one twice": ("CF008", config('{"a":0,' + "".join(f'"{i}":0,' for i in range(60_000)) + '"a":0}')),
    "config in UTF-16": ("CF002", config('{"peft_type":"LORA"}'.encode("utf-16"))),
    "10^10 layers": ("CF003", fields(layer_replication=[[0, 10**10]])),
    "layers of 4,000 digits": ("CF003", fields(layer_replication=[[0, 10**4000]])),
    "a tokenizer of merges": ("ST020", tokenizer(b'{"x":"' + b'"merges":[' * 40_000)),
    "a tokenizer of empty lists": ("ST020", tokenizer(b'{"a":[' + b"[]," * 16_000_000 + b"[]]}")),
    "a token beyond all": ("ST020", tokenizer(b'{"model":{"vocab":{"a":1000000000000}}}')),
    "a token of half a character": ("ST020", tokenizer(b'{"model":{"vocab":{"\\ud800":0}}}')),
    "2,000 shards": ("ST008", shards(2000)),
}  # fmt: skip

# What the command used: CPU seconds, and memory in KB.
PROBE = (
    "import resource, subprocess, sys; ran = subprocess.run(sys.argv[1:], capture_output=True, timeout=30);"
    "used = resource.getrusage(resource.RUSAGE_CHILDREN);"
    "print(ran.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss);"
    "sys.stdout.flush(); sys.stdout.buffer.write(ran.stdout); sys.stderr.buffer.write(ran.stderr)"
)


OF_ZEROS = {"NM002"}  # what holds nothing else has no effect


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_adapter_is_judged_within_two_seconds(name: str, tmp_path: Path) -> None:
    code, spoil = HOSTILE[name]
    it = Specimen(tmp_path / "adapter", base=None)
    it.write()
    spoil(it)
    command = [sys.executable, "-m", "converter.cli.check", str(it.directory), "--format", "json"]
    ran = subprocess.run(
        [sys.executable, "-c", PROBE, *command], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stderr == ""
    figures, _, output = ran.stdout.partition("\n")
    status, seconds, kilobytes = map(float, figures.split())
    findings = json.loads(output)["adapters"][0]["findings"]
    errors = {finding["code"] for finding in findings if finding["severity"] == "error"}
    assert (code in errors) if code else (errors <= OF_ZEROS)
    assert status == (JUDGED_BAD if errors else FINE)
    assert seconds <= 2
    assert kilobytes <= 200_000


def test_the_largest_adapter_is_judged_within_the_memory(tmp_path: Path) -> None:
    """40,000 pairs, as many as the limits allow."""
    entries = {
        f"base_model.model.model.layers.{i % 48}.mlp.experts.{i // 48}.up_proj.lora_{ab}.weight": {
            "dtype": "BF16", "shape": [1, 1], "data_offsets": [4 * i + 2 * (ab == "B"), 4 * i + 2 * (ab == "B") + 2],
        }
        for i in range(40_000)
        for ab in "AB"
    }  # fmt: skip
    it = Specimen(tmp_path / "adapter", base=None)
    it.config |= {"r": 1, "target_modules": ["up_proj"]}
    it.write()
    raw = json.dumps(entries, separators=(",", ":")).encode()
    it.weights.write_bytes(struct.pack("<Q", len(raw)) + raw + b"\x3f" * 160_000)
    command = [sys.executable, "-m", "converter.cli.check", str(it.directory), "--format", "json"]
    ran = subprocess.run(
        [sys.executable, "-c", PROBE, *command], capture_output=True, text=True, timeout=60, check=True
    )
    status, seconds, kilobytes = map(float, ran.stdout.partition("\n")[0].split())
    assert status == FINE
    assert seconds <= 8  # half of it on a machine that does nothing else, and half of that is reading the numbers
    assert kilobytes <= 200_000


def test_a_name_that_no_file_can_have_is_no_base(tmp_path: Path) -> None:
    it = Specimen(tmp_path / "adapter", base=None)
    it.config["base_model_name_or_path"] = "a" * 5000
    it.write()
    command = [sys.executable, "-m", "converter.cli.check", str(it.directory)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (FINE, "")
