"""An adapter on a hub by the library: judged, never taken for one whose numbers are here."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

import converter
from converter.errors import COULD_NOT
from converter.values.rows import read_rows
from fixtures.hub import FakeHub, serving
from tests.rules.specimens import Specimen
from tests.unit.hub.commands import ADDRESS, AT_COMMIT


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture(autouse=True)
def hub(specimen: Specimen, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    files: dict[str, bytes | Path] = {path.name: path for path in specimen.directory.iterdir()}
    with serving(FakeHub(files)) as it:
        monkeypatch.setattr(constants, "ENDPOINT", it.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(tempfile, "tempdir", str(scratch))
        yield it


def test_it_is_judged_and_then_forgotten(specimen: Specimen, scratch: Path) -> None:
    adapter = converter.read_adapter(ADDRESS)
    report = converter.check(adapter, converter.read_base(str(specimen.base)))
    assert report.passed
    assert str(report.path) == AT_COMMIT
    assert {skip.reason for skip in report.skipped} == {"reads the numbers (--headers-only)"}
    assert len([*scratch.iterdir()]) == 1
    del adapter
    assert [*scratch.iterdir()] == []


def test_in_a_notebook() -> None:
    async def cell() -> str:
        return str(converter.read_adapter(ADDRESS).shown_path)

    assert asyncio.run(cell()) == AT_COMMIT


def test_its_numbers_are_none_and_no_zeros(specimen: Specimen) -> None:
    def numbers(adapter: converter.Adapter) -> list[object]:
        return [read_rows(tensor.tensor, 0, 1) for tensor in adapter.tensors]

    with pytest.raises(converter.ConverterError, match="ended while it was read"):
        numbers(converter.read_adapter(ADDRESS))
    assert numbers(converter.read_adapter(specimen.directory))


def test_nothing_is_made_of_it(specimen: Specimen, tmp_path: Path) -> None:
    adapter, base = converter.read_adapter(ADDRESS), converter.read_base(str(specimen.base))
    deployed = converter.DeployedModel(Path(str(specimen.base)))
    for make in (
        lambda: converter.plan(adapter, base),
        lambda: converter.convert(ADDRESS, tmp_path / "out.gguf", base=base),
        lambda: converter.verify(adapter, str(specimen.base), deployed),
    ):
        with pytest.raises(converter.ConverterError, match="its numbers were not fetched; download it") as caught:
            make()
        assert caught.value.status == COULD_NOT
    assert not (tmp_path / "out.gguf").exists()


def test_one_of_several_has_to_be_named(hub: FakeHub) -> None:
    files = dict(hub.files)
    hub.files = {f"{folder}/{name}": path for folder in "ab" for name, path in files.items()}
    with pytest.raises(converter.ConverterError, match="holds 2 adapters"):
        converter.read_adapter(ADDRESS)
    assert str(converter.read_adapter(f"{ADDRESS}/b").shown_path) == f"{AT_COMMIT}/b"
    hub.files |= files
    assert str(converter.read_adapter(ADDRESS).shown_path) == AT_COMMIT
