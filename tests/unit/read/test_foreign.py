"""A download that went wrong is told what it is, whatever name it has."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import pytest

from converter.derive.base_model import read_base_model
from converter.errors import ConverterError
from converter.read.files import Unreadable
from converter.read.safetensors_header import read_safetensors_header
from tests.rules.specimens import Specimen, write_huggingface


def _zip() -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", b"x")
        return file.getvalue()


FILES = {
    "an answer of the site it came from, 'Entry not found'": b"Entry not found",
    "an answer of the site it came from, 'Repository not found'": b"Repository not found\n",
    "an answer of the site it came from, 'Invalid username or password.'": b"Invalid username or password.",
    "an answer of the site it came from, 'Access to model a/b is restricted.'": b"Access to model a/b is restricted.",
    "a page of HTML or XML": b"\n<!DOCTYPE html><html><head><title>Log in</title></head></html>",
    "a page of HTML or XML, ": b"<html>Invalid credentials in Authorization header</html>",
    "a zip archive": _zip(),
    "a pickle, which can run code": pickle.dumps({"a": [1, 2]}, protocol=2),
    "a GGUF file": b"GGUF" + struct.pack("<IQQ", 3, 0, 0),
    "a gzip archive": b"\x1f\x8b\x08" + bytes(40),
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}


@pytest.mark.parametrize("kind", FILES)
def test_weights_that_are_none(kind: str, tmp_path: Path) -> None:
    it = Specimen(tmp_path / "adapter", base=None)
    it.write()
    it.weights.write_bytes(FILES[kind])
    (finding,) = it.report().findings
    assert finding.code in {"ST002", "ST007"}
    assert f"is {kind}" in finding.message


@pytest.mark.parametrize("kind", FILES)
def test_a_config_that_is_none(kind: str, tmp_path: Path) -> None:
    it = Specimen(tmp_path / "adapter", base=None)
    it.write()
    it.config_path.write_bytes(FILES[kind])
    assert next(f.message for f in it.report().findings if f.code == "CF002").startswith(f"is {kind}")


@pytest.mark.parametrize("kind", sorted(FILES.keys() - {"a GGUF file"}))
def test_a_base_that_is_none(kind: str, tmp_path: Path) -> None:
    directory = write_huggingface(tmp_path / "hf")
    (tmp_path / "base.gguf").write_bytes(FILES[kind])
    (directory / "model.safetensors").write_bytes(FILES[kind])
    for path in (tmp_path / "base.gguf", directory):
        with pytest.raises(ConverterError, match=f"is {kind.split(',', maxsplit=1)[0]}"):
            read_base_model(path)


def test_nothing_at_all_is_empty(tmp_path: Path) -> None:
    it = Specimen(tmp_path / "adapter", base=None)
    it.write()
    it.weights.write_bytes(b"")
    it.config_path.write_bytes(b"")
    assert {finding.message for finding in it.report().findings} == {"is empty"}


@pytest.mark.parametrize("n", [0x3C, 0x4B50, 0x8B1F, 0x088B1F, 0x280280])
def test_a_header_of_any_length_is_no_other_kind(n: int, tmp_path: Path) -> None:
    """Its length's bytes are the first that are looked at."""
    path = tmp_path / "x"
    path.write_bytes(struct.pack("<Q", n) + b"{}".ljust(n))
    assert read_safetensors_header(path).entries == ()
    path.write_bytes(struct.pack("<Q", n) + b"{".ljust(n))
    with pytest.raises(Unreadable, match="is not JSON"):
        read_safetensors_header(path)
