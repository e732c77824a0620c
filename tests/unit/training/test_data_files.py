"""Every file of a directory of samples is read or the run is refused; and nothing outside it is."""

import bz2
import gzip
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from converter.errors import ConverterError
from converter.training.data import Source, read_data
from converter.training.samples import Sample, Text


def write(directory: Path, name: str, *texts: str) -> Path:
    """A file of texts, as its name says."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".jsonl" | ".ndjson":
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        case ".json":
            path.write_text(json.dumps([{"text": text} for text in texts]), encoding="utf-8")
        case ".csv" | ".tsv":
            path.write_text("".join(f"{text}\n" for text in ("text", *texts)), encoding="utf-8")
        case ".parquet":
            parquet.write_table(pa.table({"text": list(texts)}), path)
        case _:
            path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def texts(samples: tuple[Sample, ...] | None) -> list[str]:
    return sorted(sample.text for sample in samples or () if isinstance(sample, Text))


def refusal(data: Path, eval_data: Path | None = None) -> str:
    with pytest.raises(ConverterError) as refused:
        read_data(str(data), str(eval_data) if eval_data else None)
    assert "\n" not in refused.value.message
    return refused.value.message.replace(f"{data}{os.sep}", "").removeprefix(str(data))


def test_every_file_of_every_type_and_folder_is_read(tmp_path: Path) -> None:
    names = ["a.jsonl", "b.csv", "c.json", "d.tsv", "sub/e.parquet", "sub/deeper/f.txt", "g.ndjson", "train/h.jsonl"]
    for name in names:
        write(tmp_path, name, name)
    read = read_data(str(tmp_path))
    assert texts(read.learned) == sorted(names)
    assert {source.name for source in read.sources} == {str(tmp_path / name) for name in names}
    assert {(source.n_samples, source.use) for source in read.sources} == {(1, "train")}
    assert read.evaluated is None


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt", "a.json"])
@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_a_compressed_file_is_read(tmp_path: Path, name: str, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path, name, "one", "two")
    path.with_name(name + suffix).write_bytes(compress(path.read_bytes()))
    path.unlink()
    assert texts(read_data(str(tmp_path)).learned) == ["one", "two"]


def test_a_file_compressed_by_zstd_is_read(tmp_path: Path) -> None:
    with pa.CompressedOutputStream(str(tmp_path / "a.txt.zst"), "zstd") as file:
        file.write(b"one\ntwo\n")
    assert texts(read_data(str(tmp_path)).learned) == ["one", "two"]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_truncated_archive_is_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    text = b'{"text": "one"}\n' * 50
    whole = {".gz": gzip.compress(text), ".bz2": bz2.compress(text), ".xz": lzma.compress(text), ".zst": b"no archive"}
    (tmp_path / f"a.jsonl{suffix}").write_bytes(whole[suffix][:-9])
    assert refusal(tmp_path).startswith(f"a.jsonl{suffix}: can't be read: ")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt", "a.json"])
def test_what_is_not_utf_8_is_refused_by_its_line(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, "one", "two")
    path.write_bytes(path.read_bytes().replace(b"two", b"t\xe9w"))
    line = {"a.jsonl": 2, "a.csv": 3, "a.txt": 2, "a.json": 1}[name]
    assert refusal(path) == f": can't be read: line {line} is not UTF-8; save it as UTF-8"


@pytest.mark.parametrize(
    "name",
    [
        *("README.md", "README.txt", "readme_zh.txt", "LICENSE", "LICENSE.txt", ".gitattributes", ".cache/x.jsonl"),
        *("dataset_info.json", "dataset_infos.json", "loader.py", "requirements.txt", "card.yaml", "CITATION.cff"),
    ],
)
def test_what_lies_beside_data_is_none_and_said(tmp_path: Path, name: str) -> None:
    write(tmp_path, "a.jsonl", "one")
    write(tmp_path, name, "no sample")
    read = read_data(str(tmp_path))
    assert texts(read.learned) == ["one"]
    assert read.beside == (name.partition("/")[0],)


@pytest.mark.parametrize("name", ["a.docx", "data.arrow", "a.jsonl.zip", "notes", "sub/a.xlsx", "readme.docx"])
def test_a_file_of_no_known_kind_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, "a.jsonl", "one")
    write(tmp_path, name, "?")
    assert refusal(tmp_path).startswith(f"{name}: is in no known format; wanted .jsonl")


def test_files_of_two_forms_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", "one")
    (tmp_path / "b.csv").write_text("prompt,completion\nHow deep?,Nine.\n", encoding="utf-8")
    assert refusal(tmp_path) == "b.csv: holds prompt and completion, and a.jsonl holds text; wanted one form"


def test_an_empty_file_among_others_is_counted(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", "one")
    empty = write(tmp_path, "b.jsonl")
    assert Source(str(empty), 0, "train") in read_data(str(tmp_path)).sources


# --- Splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held_out", ["test.jsonl", "validation/x.csv", "valid.json", "dev-00.txt", "my_eval.jsonl"])
def test_what_is_named_as_held_out_is_evaluated_on(tmp_path: Path, held_out: str) -> None:
    for name in ("train.jsonl", "sub/x.jsonl", "latest.jsonl", held_out):
        write(tmp_path, name, name)
    read = read_data(str(tmp_path))
    assert texts(read.learned) == ["latest.jsonl", "sub/x.jsonl", "train.jsonl"]
    assert texts(read.evaluated) == [held_out]
    assert Source(str(tmp_path / held_out), 1, "eval") in read.sources


def test_the_nearest_name_says_which_split_a_file_is_of(tmp_path: Path) -> None:
    for name in ("test/train.jsonl", "train/test.jsonl", "train/sub/x.jsonl", "test/sub/y.jsonl"):
        write(tmp_path, name, name)
    read = read_data(str(tmp_path))
    assert texts(read.learned) == ["test/train.jsonl", "train/sub/x.jsonl"]
    assert texts(read.evaluated) == ["test/sub/y.jsonl", "train/test.jsonl"]


def test_a_name_of_two_splits_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "train_test.jsonl", "one")
    assert refusal(tmp_path) == "train_test.jsonl: its name says test and train; rename it to one of them"


def test_of_a_validation_and_a_test_split_one_must_be_given(tmp_path: Path) -> None:
    for name in ("train.jsonl", "validation.jsonl", "test.jsonl"):
        write(tmp_path, name, name)
    assert "give one of them as --eval-data" in refusal(tmp_path)
    read = read_data(str(tmp_path), str(tmp_path / "validation.jsonl"))
    assert (texts(read.learned), texts(read.evaluated)) == (["train.jsonl"], ["validation.jsonl"])
    assert [source.name for source in read.sources if source.use == "left"] == [str(tmp_path / "test.jsonl")]


def test_a_directory_of_held_out_files_alone_teaches_nothing(tmp_path: Path) -> None:
    write(tmp_path, "test.jsonl", "one")
    assert refusal(tmp_path).startswith(": holds nothing to learn from")
    assert texts(read_data(str(tmp_path / "test.jsonl")).learned) == ["one"]  # said by its own name, it is data


def test_what_is_evaluated_on_is_not_learned(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "later/c.jsonl"):
        write(tmp_path, name, name)
    for given in ("b.jsonl", "later"):
        read = read_data(str(tmp_path), str(tmp_path / given))
        assert len(read.learned) == 2
        assert not set(texts(read.learned)) & set(texts(read.evaluated))


def test_a_directory_to_evaluate_on_is_read_by_its_names_or_whole(tmp_path: Path) -> None:
    learned = write(tmp_path, "a.jsonl", "a")
    write(tmp_path, "named/test.jsonl", "test")
    left = write(tmp_path, "named/train.jsonl", "train")
    write(tmp_path, "plain/x.jsonl", "x")
    write(tmp_path, "plain/y.csv", "y")
    read = read_data(str(learned), str(tmp_path / "named"))
    assert texts(read.evaluated) == ["test"]
    assert Source(str(left), None, "left") in read.sources
    assert texts(read_data(str(learned), str(tmp_path / "plain")).evaluated) == ["x", "y"]


# --- Nothing outside --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["../outside.jsonl", "{outside}", "http://127.0.0.1:9/x.jsonl", "hf://datasets/a/b"])
def test_what_a_readme_names_is_not_read(tmp_path: Path, path: str) -> None:
    outside = write(tmp_path, "outside.jsonl", "secret")
    write(tmp_path, "data/a.jsonl", "one")
    named = path.format(outside=outside)
    card = f"---\nconfigs:\n- config_name: default\n  data_files: [{{split: train, path: '{named}'}}]\n---\n"
    (tmp_path / "data" / "README.md").write_text(card, encoding="utf-8")
    assert texts(read_data(str(tmp_path / "data")).learned) == ["one"]


def test_a_script_is_not_run(tmp_path: Path) -> None:
    write(tmp_path, "data/a.jsonl", "one")
    (tmp_path / "data" / "data.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')", encoding="utf-8")
    assert texts(read_data(str(tmp_path / "data")).learned) == ["one"]
    assert not (tmp_path / "mark").exists()


def test_a_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    outside = write(tmp_path, "outside/x.jsonl", "secret")
    for name, target in (("x.jsonl", outside), ("folder", outside.parent), ("gone.jsonl", tmp_path / "nowhere")):
        directory = tmp_path / f"data-{name}"
        write(directory, "a.jsonl", "one")
        (directory / name).symlink_to(target)
        assert refusal(directory).startswith(f"{name}: is a link out of its directory")


def test_a_link_to_a_folder_is_not_read_twice(tmp_path: Path) -> None:
    write(tmp_path, "sub/a.jsonl", "one")
    (tmp_path / "again").symlink_to("sub")
    (tmp_path / "sub" / "loop").symlink_to("..")
    assert "is a link" in refusal(tmp_path)


def test_a_link_in_the_directory_is_a_file(tmp_path: Path) -> None:
    write(tmp_path, ".store/x.jsonl", "one")
    (tmp_path / "a.jsonl").symlink_to(".store/x.jsonl")
    assert texts(read_data(str(tmp_path)).learned) == ["one"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", "one")
    os.mkfifo(tmp_path / "b.jsonl")
    assert refusal(tmp_path) == "b.jsonl: is no plain file; only such are read"
    assert refusal(tmp_path / "b.jsonl") == ": is a named pipe, wanted a file"


def test_a_directory_in_the_place_of_a_file_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", "one")
    write(tmp_path, "parts.jsonl/part-0.jsonl", "two")  # as Spark writes
    assert texts(read_data(str(tmp_path)).learned) == ["one", "two"]
    (tmp_path / "b.jsonl").mkdir()
    assert refusal(tmp_path) == "b.jsonl: is a directory without data, wanted a file"


def test_dates_and_numbers_in_texts_stay_texts(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", "2024-01-01", "007")
    assert texts(read_data(str(tmp_path)).learned) == ["007", "2024-01-01"]
