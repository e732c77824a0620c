"""A model in several files, beside what gguf's own writer makes of the same tensors, and beside the single file."""

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from converter.conversion import plan, write
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.errors import ConverterError
from converter.planning.conversion_plan import ConversionPlan
from tests.rules.specimens import Specimen, head_lora
from tests.unit.conversion import UNTIED_LORA, UNTIED_MODEL, write_base

SPLIT_KEYS = ["split.no", "split.count", "split.tensors.count"]


@pytest.fixture(params=[None, 64])
def planned(request: pytest.FixtureRequest, tmp_path: Path) -> ConversionPlan:
    """Over a base of the usual alignment, and of one that each file has to tell."""
    specimen = Specimen(tmp_path / "adapter", write_base(tmp_path / "base.gguf", alignment=request.param))
    specimen.tensors |= head_lora()
    specimen.write()
    assert specimen.base
    return plan(read_adapter(specimen.directory), read_base_model(specimen.base), UNTIED_MODEL)


def of_ggufs_writer(single: Path, path: Path, max_nbytes: int) -> list[GGUFReader]:
    """The single file's tensors through GGUFWriter's own splitting."""
    writer = GGUFWriter(path, "llama", split_max_size=max_nbytes)
    for tensor in GGUFReader(single).tensors:
        writer.add_tensor(tensor.name, np.asarray(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return [GGUFReader(found) for found in sorted(path.parent.glob(f"{path.stem}-*.gguf"))]


@pytest.mark.parametrize("max_nbytes", [1, 5_000, 12_000, 30_000])
def test_shards_are_those_of_ggufs_writer(max_nbytes: int, planned: ConversionPlan, tmp_path: Path) -> None:
    (single,) = write(planned, tmp_path / "single.gguf")
    (written,) = write(planned, tmp_path / "model.gguf", split_max_size=max_nbytes)
    (tmp_path / "theirs").mkdir()
    theirs = of_ggufs_writer(single.path, tmp_path / "theirs" / "model.gguf", max_nbytes)
    ours = [GGUFReader(path) for path in written.shards]
    assert [path.name for path in written.shards] == [path.name for path in sorted((tmp_path / "theirs").iterdir())]
    assert len(ours) > 1
    for found, wanted in zip(ours, theirs, strict=True):
        assert [tensor.name for tensor in found.tensors] == [tensor.name for tensor in wanted.tensors]
        for key in SPLIT_KEYS:
            assert found.fields[key].types == wanted.fields[key].types
            assert found.fields[key].contents() == wanted.fields[key].contents()


def test_shards_hold_what_the_single_file_holds(planned: ConversionPlan, tmp_path: Path) -> None:
    (single,) = write(planned, tmp_path / "single.gguf")
    (written,) = write(planned, tmp_path / "model.gguf", split_max_size=12_000)
    whole, (first, *others) = GGUFReader(single.path), map(GGUFReader, written.shards)
    assert written.path == written.shards[0]
    assert written.nbytes == sum(path.stat().st_size for path in written.shards)
    assert written.kept == single.kept
    found = [tensor for shard in (first, *others) for tensor in shard.tensors]
    for tensor, wanted in zip(found, whole.tensors, strict=True):
        assert (tensor.name, tensor.tensor_type, tensor.data.tobytes()) == (
            wanted.name, wanted.tensor_type, wanted.data.tobytes(),
        )  # fmt: skip
    counts = {"GGUF.tensor_count", "GGUF.kv_count"}
    for key in whole.fields.keys() - counts:
        assert first.fields[key].contents() == whole.fields[key].contents()
    assert first.fields.keys() - whole.fields.keys() == set(SPLIT_KEYS)
    alignment = {"general.alignment"} & whole.fields.keys()
    for shard in others:
        assert {key for key in shard.fields if not key.startswith("GGUF.")} == {*SPLIT_KEYS, *alignment}


def test_what_fits_in_one_file_is_that_file(planned: ConversionPlan, tmp_path: Path) -> None:
    (single,) = write(planned, tmp_path / "single.gguf")
    (written,) = write(planned, tmp_path / "model.gguf", split_max_size=10**9)
    assert (written.path, written.shards) == (tmp_path / "model.gguf", ())
    assert written.path.read_bytes() == single.path.read_bytes()


def test_too_many_shards_are_refused(planned: ConversionPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.planning.shards.MOST", 3)
    with pytest.raises(
        ConverterError, match=r"^--split-max-size makes \d+ files, at most 3 are written; give a larger"
    ):
        write(planned, tmp_path / "model.gguf", split_max_size=1)


def test_only_a_model_is_split(planned: ConversionPlan, tmp_path: Path) -> None:
    lora = plan(planned.adapter, planned.base, UNTIED_LORA)
    with pytest.raises(ConverterError, match="--split-max-size needs --to model"):
        write(lora, tmp_path / "out", split_max_size=1)
