"""What is spoilt: good inputs and odd ones, as the bytes of a few small files, each with the door it goes through.

The adapters are the specimens of the rules' own tests: one for each fault that is known, so that a spoilt one begins
where the readers already turn.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from gguf import GGUFWriter

from tests.rules.bad import BAD
from tests.rules.specimens import Specimen, head_lora, write_gguf, write_huggingface

SEED_NBYTES: Final = 1 << 18  # larger specimens are about size, and have tests of their own

Files = Mapping[str, bytes]


class Seed(NamedTuple):
    """Files by their names, relative to the case's directory, and the door that they go through."""

    name: str
    door: str
    files: Files
    base: str = ""  # the name of an adapter's, if it has one


def seeds(scratch: Path) -> tuple[Seed, ...]:
    """Every seed, in a fixed order; ``scratch`` is an empty directory."""
    judged = (*_adapters(scratch), *_bases(scratch), *_judging())
    return (*judged, *_samples(scratch), *_training(), *_manifests(scratch), *_imatrices(scratch))


def _adapters(scratch: Path) -> Iterator[Seed]:
    for number, (codes, spoil) in enumerate((*_GOOD, *BAD)):
        directory = scratch / f"{number:04}"
        bases = directory / "bases"
        bases.mkdir(parents=True)
        for name, architecture in (("tied", "llama"), ("untied", "llama"), ("gemma", "gemma")):
            write_gguf(bases / f"{name}.gguf", architecture, tied=name != "untied")
        specimen = Specimen(directory / "adapter", bases / "tied.gguf")
        spoil(specimen, bases)
        base = specimen.base.relative_to(directory).as_posix() if specimen.base else ""
        files = _read(directory, "adapter", *filter(None, [base]))
        if files:
            yield Seed(f"{spoil.__name__} ({', '.join(codes)})", "adapter", files, base)


def _good(it: Specimen, _bases: Path) -> None:
    it.write()


def _good_with_head(it: Specimen, bases: Path) -> None:
    it.tensors |= head_lora()
    it.base = bases / "untied.gguf"
    it.write()


_GOOD: Final = (((), _good), ((), _good_with_head))


def _read(directory: Path, *names: str) -> Files:
    """The regular files of these names or below them; none where they are large, or where one can't be read."""
    files: dict[str, bytes] = {}
    with suppress(OSError):
        for path in sorted(path for name in names for path in (directory / name, *(directory / name).rglob("*"))):
            if path.is_file() and not path.is_symlink():
                files[path.relative_to(directory).as_posix()] = path.read_bytes()
        if sum(map(len, files.values())) <= SEED_NBYTES:
            return files
    return {}


def _bases(scratch: Path) -> Iterator[Seed]:
    for outtype in ("F32", "Q8_0"):
        directory = scratch / f"base-{outtype}"
        directory.mkdir()
        write_gguf(directory / "base.gguf", outtype=outtype, name="me/tiny", seed=1)
        yield Seed(f"GGUF of {outtype}", "base", _read(directory, "base.gguf"), "base.gguf")
    for model_type in ("llama", "gemma3_text", "qwen3_5_text", "gpt2", "gpt_oss"):
        directory = scratch / f"base-{model_type}"
        write_huggingface(directory / "base", model_type=model_type)
        yield Seed(f"config.json of {model_type}", "base", _read(directory, "base"), "base")


_POLICY: Final = """fail-on = "error"
ignore = ["SC003"]

[severity]
LO021 = "warning"

[limits]
rank = 64
size = "200 MB"
bases = ["google/gemma-2-*"]
base-fingerprints = []
forbidden-modules = ["lm_head"]
trust-named-base = false

[[by-path]]
path = "experiments/*"
ignore = ["PO"]

[[waivers]]
code = "HD001"
adapter = "0000000000000000000000000000000000000000000000000000000000000000"
path = "one"
reason = "known"
expires = 2027-01-01
"""


def _judging() -> Iterator[Seed]:
    yield Seed("policy", "policy", {"adapter-check.toml": _POLICY.encode()})
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "adapter", "digest": {"sha256": "0" * 64}}],
        "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
        "predicate": {"result": "PASSED", "configuration": [], "deployment": "--to lora", "waivedUntil": "2027-01-01"},
    }
    line = json.dumps(statement).encode() + b"\n"
    yield Seed("attestations", "attestations", {"attestations.jsonl": line * 2})


_CHAT: Final = [{"role": "user", "content": "Wind?"}, {"role": "assistant", "content": "North."}]


def _samples(scratch: Path) -> Iterator[Seed]:
    rows: Mapping[str, list[dict[str, object]]] = {
        "texts": [{"text": "one"}, {"text": "two"}],
        "completions": [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}],
        "chats": [{"messages": _CHAT}, {"messages": _CHAT, "tools": None}],
    }
    for name, samples in rows.items():
        lines = "".join(json.dumps(row) + "\n" for row in samples).encode()
        yield Seed(f"{name} as JSON lines", "data", {"data/train.jsonl": lines, "data/eval.jsonl": lines})
        yield Seed(f"{name} as JSON", "data", {"data/train.json": json.dumps(samples).encode()})
        table = pa.Table.from_pylist(samples)
        pq.write_table(table, scratch / "train.parquet")
        yield Seed(f"{name} as Parquet", "data", {"data/train.parquet": (scratch / "train.parquet").read_bytes()})
        if name != "chats":
            pa_csv.write_csv(table, scratch / "train.csv")
            yield Seed(f"{name} as CSV", "data", {"data/train.csv": (scratch / "train.csv").read_bytes()})


_SPACE: Final = """[sweep]
n_trials = 4
sampler = "tpe"
tolerance = 0.01

[space]
learning_rate = [1e-5, 1e-3]
r = [8, 16]
head = ["none", "lora"]
"""
_NO_PATHS: Final = 'data = "data.jsonl"\nr = 8\nlora_alpha = 16.0\nbias = "all"\n'
_SETTINGS: Final = f'base = "base"\noutput = "out"\n{_NO_PATHS}num_train_epochs = 1\n'


def _training() -> Iterator[Seed]:
    yield Seed("space of a sweep", "space", {"sweep.toml": _SPACE.encode()})
    yield Seed("settings of a training", "settings", {"train.toml": _SETTINGS.encode()})
    yield Seed("settings beyond a float", "settings", {"train.toml": f"lora_alpha = 1{'0' * 400}\n".encode()})
    for name in ("base", "output", "chat_template"):
        text = f'{_NO_PATHS}{name} = "\\u0000"\n'
        yield Seed(f"settings with an impossible {name}", "settings", {"train.toml": text.encode()})


_ROWS: Final = [
    {"adapter": "adapters/one", "base": "base.gguf", "deployment": "untie-model", "output": "one.gguf"},
    {"adapter": "adapters/two", "base": "base.gguf", "deployment": "lora", "output": "two/lora.gguf"},
]


def _manifests(scratch: Path) -> Iterator[Seed]:
    table = pa.Table.from_pylist(_ROWS)
    pa_csv.write_csv(table, scratch / "manifest.csv")
    pq.write_table(table, scratch / "manifest.parquet")
    (scratch / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _ROWS), encoding="utf-8")
    for ending in ("csv", "jsonl", "parquet"):
        name = f"manifest.{ending}"
        yield Seed(f"fleet as {ending}", "manifest", {name: (scratch / name).read_bytes()})


def _imatrices(scratch: Path) -> Iterator[Seed]:
    entry = struct.pack("<i4s2i3f", 4, b"name", 8, 3, 1.0, 2.0, 3.0)
    yield Seed(
        "binary imatrix", "imatrix", {"imatrix": struct.pack("<i", 2) + entry * 2 + struct.pack("<2i1s", 5, 1, b"x")}
    )
    writer = GGUFWriter(scratch / "imatrix.gguf", "")
    writer.add_array("imatrix.datasets", ["texts.txt"])
    writer.add_uint32("imatrix.chunk_count", 5)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name in ("blk.0.attn_q.weight", "output.weight"):
        writer.add_tensor(f"{name}.in_sum2", np.ones((2, 4), np.float32))
        writer.add_tensor(f"{name}.counts", np.ones((2, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    yield Seed("imatrix as GGUF", "imatrix", {"imatrix": (scratch / "imatrix.gguf").read_bytes()})
