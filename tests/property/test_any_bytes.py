"""Any bytes are read, or refused with a fault or a ConverterError: never another exception."""

import json
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converter.checking import check_adapter
from converter.derive.adapter import read_adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.derive.config_fields import FIELDS
from converter.diagnostics import Deployment
from converter.errors import COULD_NOT, FINE, ConverterError, Status
from converter.report.formats import FORMATS, rendered
from converter.report.outcomes import Run
from converter.report.text import text_report
from tests.rules.specimens import EMBEDDING, HEAD, UP, Specimen, write_gguf, write_huggingface

MANY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
SIZES = st.lists(st.integers(-1, 40) | st.sampled_from([1 << 40, 1 << 62, 10**400]), max_size=3)
NAMES = st.sampled_from(
    [f"{UP}.lora_A.weight", f"{UP}.lora_B.weight", f"{HEAD}.lora_A.weight", f"{HEAD}.lora_B.weight", f"{HEAD}.weight",
     f"{HEAD}.base_layer.weight", f"{EMBEDDING}.lora_embedding_A", f"{EMBEDDING}.lora_embedding_B", "__metadata__"]
) | st.text(max_size=12)  # fmt: skip
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "F8_E4M3", "I8", "X"]),
        "shape": SIZES,
        "data_offsets": st.just([0, 8]) | SIZES,
    }
)

CONFIG_FIELDS = (
    "model_type",
    "text_config",
    "hidden_size",
    "head_dim",
    "num_attention_heads",
    "num_hidden_layers",
    "vocab_size",
    "tie_word_embeddings",
    "quantization_config",
    "_name_or_path",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return read_base_model(write_gguf(tmp_path_factory.mktemp("base") / "base.gguf"))


@pytest.fixture
def specimen(tmp_path: Path) -> Specimen:
    specimen = Specimen(tmp_path / "adapter", base=None)
    specimen.write()
    return specimen


def judge(specimen: Specimen, base: BaseModel) -> None:
    """Read, judge and report as adapter-check does."""
    try:
        report = check_adapter(read_adapter(specimen.directory), base, Deployment(), values=True)
    except ConverterError:
        return
    text_report(report)
    for name in FORMATS:
        rendered(name, Run([report]))


def status_of_reading(base: Path) -> Status:
    """Whatever is wrong with a base is no judgement of the adapter: status 2."""
    try:
        read_base_model(base)
    except ConverterError as error:
        return error.status
    return FINE


@MANY
@given(data=st.binary(max_size=200))
def test_any_bytes_as_weights(data: bytes, specimen: Specimen, base: BaseModel) -> None:
    specimen.weights.write_bytes(data)
    judge(specimen, base)


@MANY
@given(
    pair=st.tuples(st.sampled_from([UP, HEAD]), ENTRIES, ENTRIES),
    more=st.dictionaries(NAMES, ENTRIES | JSON, max_size=4),
)
def test_any_header(
    pair: tuple[str, object, object], more: dict[str, object], specimen: Specimen, base: BaseModel
) -> None:
    module, a, b = pair
    encoded = json.dumps({f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b, **more}).encode()
    specimen.weights.write_bytes(struct.pack("<Q", len(encoded)) + encoded + bytes(8))
    judge(specimen, base)


@MANY
@given(data=st.data())
def test_a_good_file_with_bytes_changed(data: st.DataObject, tmp_path: Path, base: BaseModel) -> None:
    specimen = Specimen(tmp_path / "adapter", base=None)
    specimen.write()
    raw = bytearray(specimen.weights.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    specimen.weights.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    judge(specimen, base)


@MANY
@given(data=st.binary(max_size=100))
def test_any_bytes_as_config(data: bytes, specimen: Specimen, base: BaseModel) -> None:
    specimen.config_path.write_bytes(data)
    judge(specimen, base)


@MANY
@given(fields=st.dictionaries(st.sampled_from(sorted(FIELDS)) | st.text(max_size=6), JSON, max_size=12))
def test_any_config(fields: dict[str, object], specimen: Specimen, base: BaseModel) -> None:
    specimen.config_path.write_text(json.dumps({"peft_type": "LORA", "r": 4, **fields}), encoding="utf-8")
    judge(specimen, base)


@MANY
@given(weight_map=JSON | st.dictionaries(NAMES, st.text(max_size=6) | st.just("a.safetensors"), max_size=4))
def test_any_index(weight_map: object, specimen: Specimen, base: BaseModel) -> None:
    specimen.weights.unlink(missing_ok=True)
    specimen.write_index(weight_map)
    judge(specimen, base)


@MANY
@given(data=st.binary(max_size=100))
def test_any_bytes_as_index(data: bytes, specimen: Specimen, base: BaseModel) -> None:
    specimen.weights.unlink(missing_ok=True)
    specimen.index.write_bytes(data)
    judge(specimen, base)


@MANY
@given(data=st.data())
def test_any_bytes_as_gguf(data: st.DataObject, tmp_path: Path, base: BaseModel) -> None:
    raw = bytearray(base.path.read_bytes())
    size_of_header = base.shards[0].data_offset
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, size_of_header - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "spoilt.gguf"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    assert status_of_reading(path) in (FINE, COULD_NOT)


@MANY
@given(changes=st.dictionaries(st.sampled_from(CONFIG_FIELDS), JSON, max_size=3))
def test_any_config_of_a_base(changes: dict[str, object], tmp_path: Path) -> None:
    write_huggingface(tmp_path, **changes)
    assert status_of_reading(tmp_path) in (FINE, COULD_NOT)


@MANY
@given(data=st.binary(max_size=60))
def test_any_bytes_as_config_of_a_base(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(data)
    assert status_of_reading(tmp_path) in (FINE, COULD_NOT)
