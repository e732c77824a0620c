"""Whatever passes the rules for a deployment can be planned, with every key and field in the ledger."""

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converter.checking import check_adapter
from converter.derive.adapter import read_adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.diagnostics import Deployment
from converter.planning.conversion import plan_conversion
from fixtures.generated import Tensor
from tests.rules.specimens import (
    EMBEDDING,
    HEAD,
    HIDDEN,
    PREFIX,
    RANK,
    UP,
    VOCAB,
    Specimen,
    base_embedding,
    embedding_lora,
    head_lora,
    tensor,
    write_gguf,
)

TARGETS: tuple[Literal["lora", "model"], ...] = ("lora", "model")
PARTS: tuple[dict[str, Tensor], ...] = (
    head_lora(),
    embedding_lora(),
    {f"{HEAD}.base_layer.weight": base_embedding()},
    {f"{EMBEDDING}.base_layer.weight": base_embedding()},
    {f"{HEAD}.weight": tensor(VOCAB, HIDDEN)},
    {f"{EMBEDDING}.modules_to_save.default.weight": tensor(VOCAB, HIDDEN)},
    {f"{HEAD}.bias": tensor(VOCAB)},
    {f"{HEAD}.lora_embedding_A": tensor(RANK, VOCAB)},
    {f"{UP}.lora_magnitude_vector": tensor(HIDDEN)},
    {f"{UP}.weight": tensor(HIDDEN, 96)},
    {f"{PREFIX}.model.norm.weight": tensor(HIDDEN)},
    {f"{UP}.lora_A.default.weight": tensor(RANK, 96)},
    {"stray": tensor(1)},
)
FIELDS: dict[str, st.SearchStrategy[object]] = {
    "ensure_weight_tying": st.booleans(),
    "modules_to_save": st.sampled_from([None, ["lm_head"], ["embed_tokens"], ["model.embed_tokens", "lm_head"]]),
    "bias": st.sampled_from(["none", "all"]),
    "use_dora": st.sampled_from([False, False, True]),
    "use_rslora": st.booleans(),
    "lora_alpha": st.sampled_from([8, 0, -1.5]),
    "alpha_pattern": st.sampled_from([{}, {"lm_head": 4}, {"q_proj": 0}]),
    "note": st.sampled_from([None, "", "kept"]),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> tuple[BaseModel, BaseModel]:
    directory = tmp_path_factory.mktemp("bases")
    tied, untied = write_gguf(directory / "tied.gguf"), write_gguf(directory / "untied.gguf", tied=False)
    return read_base_model(tied), read_base_model(untied)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.sets(st.sampled_from(range(len(PARTS))), max_size=4),
    config=st.fixed_dictionaries({}, optional=FIELDS),
)
def test_what_passes_can_be_planned(
    parts: set[int], config: dict[str, object], tmp_path: Path, bases: tuple[BaseModel, BaseModel]
) -> None:
    specimen = Specimen(tmp_path / "adapter", base=None)
    for part in sorted(parts):
        specimen.tensors |= PARTS[part]
    specimen.config |= config
    specimen.write()
    adapter = read_adapter(specimen.directory)
    for deployment in (Deployment(to, untie) for to in TARGETS for untie in (False, True)):
        for base in bases:
            if check_adapter(adapter, base, deployment, values=True).passed:
                plan_conversion(adapter, base, deployment)
