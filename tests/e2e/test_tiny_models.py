"""What the survey of tiny models says of a few of them is measured again."""

import pytest

from fixtures.survey import SURVEY
from tools.llama_cpp_sources import sources
from tools.tiny_adapters import built
from tools.tiny_models import convert_bases, measure
from tools.tiny_results import ROADS, read

pytestmark = [
    pytest.mark.llama,
    pytest.mark.thorough,
    pytest.mark.skipif(
        sources() is None, reason="the sources of llama.cpp's converter: python -m tools.llama_cpp_sources"
    ),
]


@pytest.mark.parametrize("name", ["gemma3_mm", "deepseek_v3", "cohere2", "nemotron_h_moe"])
def test_a_model_is_measured_as_it_says(name: str) -> None:
    built(SURVEY[name])
    convert_bases([name])
    said = {(row.adapter, road): row.verdict(road) for row in read() if row.model == name for road in ROADS}
    found = {(row.adapter, road): row.verdict(road) for row in measure(name) for road in ROADS}
    assert found == said
    assert "exact" in found.values()
