"""The base that layer_replication makes, against PEFT's list of layers written out here."""

from pathlib import Path

import pytest

from converter.derive.adapter import read_adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.derive.replication import as_trained
from tests.rules.specimens import N_LAYER, Specimen, write_gguf, write_huggingface


def replicated(specimen: Specimen, ranges: object) -> BaseModel:
    specimen.config["layer_replication"] = ranges
    specimen.write()
    assert specimen.base
    return as_trained(read_base_model(specimen.base), read_adapter(specimen.directory))


@pytest.fixture
def specimen(tmp_path: Path) -> Specimen:
    return Specimen(tmp_path / "adapter", write_gguf(tmp_path / "base.gguf"))


@pytest.mark.parametrize(
    ("ranges", "layers"),
    [([[0, 2], [0, 2]], (0, 1, 0, 1)), ([[1, 2], [0, 1]], (1, 0)), ([[1, 2]], (1,)), ([[0, 2], [1, 2]], (0, 1, 1))],
)
def test_each_layer_lies_where_its_own_does(ranges: object, layers: tuple[int, ...], specimen: Specimen) -> None:
    assert specimen.base
    base, grown = read_base_model(specimen.base), replicated(specimen, ranges)
    before, after = base.shards[0].by_name, grown.shards[0].by_name
    assert (grown.original, grown.dims["n_layer"]) == (base, len(layers))
    blocks = {name for name in after if name.startswith("blk.")}
    assert len(blocks) == len(layers) * sum(name.startswith("blk.0.") for name in before)
    for number, layer in enumerate(layers):
        assert after[f"blk.{number}.ffn_down.weight"].offset == before[f"blk.{layer}.ffn_down.weight"].offset
        name = "model.layers.{}.mlp.down_proj"
        assert grown.weight(name.format(number)) == base.weight(name.format(layer))
    assert after["token_embd.weight"] == before["token_embd.weight"]


@pytest.mark.parametrize("ranges", [None, [], [[0, N_LAYER + 1]]])
def test_without_ranges_that_fit_the_base_is_itself(ranges: object, specimen: Specimen) -> None:
    assert specimen.base
    grown = replicated(specimen, ranges)
    assert grown.original is None
    assert grown.shards == read_base_model(specimen.base).shards


def test_a_config_alone_is_replicated_too(specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_huggingface(tmp_path / "hf")
    grown = replicated(specimen, [[0, 2], [0, 2]])
    assert grown.shape("model.layers.3.mlp.down_proj") == grown.shape("model.layers.0.mlp.down_proj") is not None
    assert grown.shape("model.layers.4.mlp.down_proj") is None
