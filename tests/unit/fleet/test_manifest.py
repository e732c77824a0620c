"""A manifest in each of its forms, and one line for each fault: file, line, column, what was found, what was wanted."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from converter.diagnostics import Deployment
from converter.errors import COULD_NOT, ConverterError
from converter.fleet import manifest_files
from converter.fleet.manifest import Defaults, discovered, read_manifest
from converter.fleet.rows import Row, refuse_clashes
from tests.unit.fleet.small_fleet import write_adapter

ROWS = [
    {"adapter": "a", "base": "base.gguf", "deployment": "model", "output": "out/a.gguf", "rename_keys": "true"},
    {"adapter": "/else/b", "base": "", "deployment": "", "output": "../b.gguf", "rename_keys": ""},
]


def csv_text(rows: list[dict[str, str]]) -> str:
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    return "\n".join(lines) + "\n"


def write(path: Path) -> Path:
    if path.suffix == ".csv":
        path.write_text(csv_text(ROWS), encoding="utf-8-sig")
    elif path.suffix == ".jsonl":
        path.write_text("\n\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def rows_of(path: Path, defaults: Defaults = Defaults()) -> list[Row]:  # noqa: B008  a NamedTuple
    return list(read_manifest(path, defaults))


@pytest.mark.parametrize("name", ["fleet.csv", "fleet.jsonl", "fleet.parquet"])
def test_three_forms_say_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are relative to the manifest, wherever the command runs."""
    directory = tmp_path / "there"
    directory.mkdir()
    monkeypatch.chdir(tmp_path)
    write(directory / name)
    first, second = rows_of(Path("there") / name)
    assert first[1:] == (
        directory / "a", directory / "base.gguf", Deployment("model"), directory / "out" / "a.gguf", None, True, False,
        None, None, None, False, None,
    )  # fmt: skip
    assert second[1:] == (
        Path("/else/b"),
        None,
        Deployment(),
        tmp_path / "b.gguf",
        None,
        False,
        False,
        None,
        None,
        None,
        False,
        None,
    )


def test_what_is_empty_is_what_the_options_say(tmp_path: Path) -> None:
    (tmp_path / "fleet.csv").write_text("adapter,deployment,outtype\na,,\nb,lora,f32\n", encoding="utf-8")
    asked = Deployment("model", untie=True, outtype="f16", host="wide")
    defaults = Defaults(Path("/base"), asked, tmp_path / "outputs")
    first, second = rows_of(tmp_path / "fleet.csv", defaults)
    assert (first.base, first.deployment) == (Path("/base"), asked)
    assert first.output == tmp_path / "outputs" / "a.gguf"
    assert second.deployment == Deployment("lora", outtype="f32")


FAULTS = {
    "unknown column": ("x.csv", "adapter,outpt\na,b\n", "line 1: column 'outpt' is unknown; wanted adapter, allow_"),
    "no adapter column": ("x.csv", "base,output\na,b\n", "line 1: has no column 'adapter'; found 'base', 'output'"),
    "twice": ("x.csv", "adapter,output,output\na,b,c\n", "line 1: column 'output' is there twice"),
    "cells": ("x.csv", "adapter,output\na,b\nc\n", "line 3: has 1 cells, wanted 2: adapter, output"),
    "quote": ("x.csv", 'adapter,output\n"a,b\n', "line 2: is no CSV: unexpected end of data"),
    "empty": ("x.csv", "\n", "line 1: has no column 'adapter'; found none"),
    "deployment": (
        "x.csv", "adapter,output,deployment\na,b,merged\n",
        "line 2: column 'deployment' is 'merged', wanted one of lora, model, untie-lora, untie-model",
    ),
    "outtype": ("x.csv", "adapter,output,outtype\na,b,q9\n", "line 2: column 'outtype' is 'q9', wanted one of auto"),
    "quantize": ("x.csv", "adapter,output,quantize\na,b,Q4\n", "column 'quantize' is 'Q4', wanted one of Q8_0"),
    "quantised LoRA": (
        "x.csv", "adapter,output,deployment,quantize\na,b,lora,Q8_0\n",
        "line 2: column 'quantize' is 'Q8_0', wanted none: only a merged model",
    ),
    "imatrix": ("x.csv", "adapter,output,deployment,imatrix\na,b,model,i\n", "column 'imatrix' is 'i', wanted none"),
    "types without a mixture": (
        "x.csv", "adapter,output,output_tensor_type\na,b,Q8_0\n",
        "'Q8_0', wanted none: it is for a row that says quantize",
    ),
    "tensor_type": (
        "x.csv", "adapter,output,quantize,tensor_type\na,b,Q8_0,attn_v=q8_0 q4\n",
        "column 'tensor_type' is 'attn_v=q8_0 q4', wanted PATTERN=TYPE, and spaces between several: 'q4': wanted",
    ),
    "pattern": (
        "x.csv", "adapter,output,quantize,tensor_type\na,b,Q8_0,(=q8_0\n", "spaces between several: '(' is no pattern",
    ),
    "end's type": (
        "x.csv", "adapter,output,quantize,token_embedding_type\na,b,Q8_0,q9\n", "is 'q9', wanted one of F32, F16",
    ),
    "least_kept": (
        "x.csv", "adapter,output,quantize,least_kept\na,b,Q8_0,2\n", "'least_kept' is '2', wanted a number from 0 to 1",
    ),
    "split": (
        "x.csv", "adapter,output,deployment,split_max_size\na,b,model,4T\n",
        "column 'split_max_size' is '4T', wanted a size such as 500M or 4G",
    ),
    "split LoRA": (
        "x.csv", "adapter,output,split_max_size\na,b,4G\n",
        "'split_max_size' is '4G', wanted none: only a merged model",
    ),
    "checkpoint": (
        "x.csv", "adapter,output,checkpoint\na,b,c\n", "'checkpoint' is 'c', wanted none: it goes with a base",
    ),
    "untied_base": (
        "x.csv", "adapter,output,untied_base\na,b,u\n", "'untied_base' is 'u', wanted none: it is for untie-lora",
    ),
    "a Modelfile": ("x.csv", "adapter,output,modelfile\na,b,true\n", "line 1: column 'modelfile' is unknown; wanted"),
    "host": ("x.csv", "adapter,output,host\na,b,wide\n", "column 'host' is 'wide', wanted none"),
    "adapter": ("x.csv", "adapter,output\n,b\n", "line 2: column 'adapter' is empty, wanted an adapter's directory"),
    "output": ("x.csv", "adapter,output\na,\n", "line 2: column 'output' is empty, wanted a path"),
    "switch": ("x.csv", "adapter,output,text_only\na,b,2\n", "column 'text_only' is '2', wanted true or false"),
    "on a hub": ("x.csv", "adapter,output\nhf://a/b,c\n", "'adapter' is 'hf://a/b', wanted a path on this machine"),
    "not UTF-8": ("x.csv", b"adapter,output\na,\xff\n", "line 2: not UTF-8"),
    "control": ("x.csv", "adapter,output\na,b\x1b[2J\n", "line 2: column 'output' holds 'b\\x1b[2J', wanted"),
    "no JSON": (
        "x.jsonl", '{"adapter": "a", "output": "b"}\n{"adapter"}\n',
        "x.jsonl: line 2: column 11 of the text: is no JSON",
    ),
    "no object": ("x.jsonl", '["a"]\n', "line 1: is a list, wanted an object a line"),
    "member twice": ("x.jsonl", '{"adapter": "a", "adapter": "b"}\n', "line 1: column 'adapter' is there twice"),
    "a number": ("x.jsonl", '{"adapter": 7}\n', "line 1: column 'adapter' is a number, wanted a text"),
    "nested": ("x.jsonl", '{"adapter": ' + "[" * 60_000 + "\n", "is no JSON"),
    "long line": ("x.jsonl", " " * 70_000 + "{}\n", "line 1: is longer than 65536 bytes"),
    "long cell": ("x.csv", f"adapter,output\n{'a' * 5000},b\n", "column 'adapter' has 5000 characters (at most 4096)"),
    "no Parquet": ("x.parquet", "PAR1", "x.parquet: is no Parquet that can be read"),
    "other form": ("x.yaml", "", "x.yaml: is no manifest by its name; wanted .csv, .jsonl, .ndjson, .parquet"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "text", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_one_line(name: str, text: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConverterError) as caught:
        rows_of(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert caught.value.status == COULD_NOT


def test_a_column_of_numbers_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"adapter": [1, 2]}), tmp_path / "x.parquet")
    with pytest.raises(ConverterError, match="column 'adapter' is of type int64, wanted string"):
        rows_of(tmp_path / "x.parquet")


def test_a_parquet_whose_text_is_no_text_is_refused(tmp_path: Path) -> None:
    text = pa.array([b"adapter\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"adapter": text}), tmp_path / "x.parquet")
    with pytest.raises(ConverterError, match="is no Parquet that can be read: 'utf-8' codec"):
        rows_of(tmp_path / "x.parquet")


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.parquet"])
def test_rows_and_bytes_have_an_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / name)
    monkeypatch.setattr(manifest_files, "MANIFEST_ROWS", 1)
    with pytest.raises(ConverterError, match="has more than 1 rows"):
        rows_of(path, Defaults(outputs=tmp_path))
    monkeypatch.setattr(manifest_files, "MANIFEST_NBYTES", 100)
    with pytest.raises(ConverterError, match=r"has \d+ bytes \(at most 100\)"):
        rows_of(path)


def test_empty_lines_have_an_end(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"\n" * 400_000)
    with pytest.raises(ConverterError, match="has more than 100000 rows"):
        rows_of(tmp_path / "x.csv")


def test_a_parquet_of_few_bytes_may_say_that_it_holds_many(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    names = [f"{number:0200}" for number in range(300_000)]
    pq.write_table(pa.table({"adapter": names}), path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 5_000_000
    with pytest.raises(ConverterError, match=r"has \d+ bytes \(at most 50000000\)"):
        rows_of(path)


def test_a_long_text_in_many_rows_is_held_once(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 5_000), pa.array(["x" * 20_000_000]))
    pq.write_table(pa.table({"adapter": long}), path, store_schema=False)
    with pytest.raises(ConverterError, match="column 'adapter' has a cell of 20000000 bytes; no path is that long"):
        rows_of(path)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_both_kinds_of_strings_are_read(kind: pa.DataType, tmp_path: Path) -> None:
    pq.write_table(pa.table({"adapter": pa.array(["a", "b"], kind), "text_only": [True, None]}), tmp_path / "x.parquet")
    rows = rows_of(tmp_path / "x.parquet", Defaults(outputs=tmp_path))
    assert [(row.adapter.name, row.text_only, row.where[-5:]) for row in rows] == [
        ("a", True, "row 1"),
        ("b", False, "row 2"),
    ]


def test_a_pipe_is_no_manifest(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "x.csv")
    with pytest.raises(ConverterError, match="is a named pipe, wanted a file"):
        rows_of(tmp_path / "x.csv")


def clash(tmp_path: Path, text: str) -> str:
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ConverterError) as caught:
        refuse_clashes(rows_of(tmp_path / "x.csv"))
    return str(caught.value)


def test_two_rows_never_share_an_output(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    text = "adapter,output\na,out.gguf\nb,link/x/../out.gguf\n"
    assert "line 3: output" in (message := clash(tmp_path, text))
    assert f"is that of {tmp_path / 'x.csv'}: line 2 too" in message


def test_no_row_writes_what_another_reads(tmp_path: Path) -> None:
    text = "adapter,base,output\na,b.gguf,x.gguf\nc,x.gguf,y.gguf\n"
    assert "line 3: base" in clash(tmp_path, text)
    text = "adapter,deployment,output\na,untie-lora,out\nb,lora,out/b.gguf\n"
    assert "line 3: output" in clash(tmp_path, text)


def test_a_directory_is_looked_through(tmp_path: Path) -> None:
    for name in ("a", "team/b", "team/c"):
        write_adapter(tmp_path / "adapters" / name)
    rows, closed = discovered(tmp_path / "adapters", Defaults(outputs=tmp_path / "out"))
    assert closed == ()
    found = {
        (row.adapter.relative_to(tmp_path).as_posix(), row.output.relative_to(tmp_path).as_posix()) for row in rows
    }
    assert found == {
        ("adapters/a", "out/a.gguf"), ("adapters/team/b", "out/team/b.gguf"), ("adapters/team/c", "out/team/c.gguf"),
    }  # fmt: skip
    with pytest.raises(ConverterError, match="say with --output where they go"):
        discovered(tmp_path / "adapters", Defaults())
