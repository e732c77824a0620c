"""Whole tensors beside a LoRA that hold the base's own numbers: they say nothing, and stand in no deployment's way."""

from pathlib import Path

import numpy as np
import pytest

from converter.conversion import plan, write
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import EVERY, MODEL, Deployment
from fixtures.generated import Tensor
from tests.rules.bad.checkpoints import on_checkpoint, weights
from tests.rules.bad.tokens import with_tokens
from tests.rules.specimens import (
    EMBEDDING,
    HEAD,
    HIDDEN,
    PREFIX,
    VOCAB,
    Specimen,
    base_embedding,
    codes,
    open_for,
    tensor,
    write_gguf,
)
from tests.unit.conversion import values_of

Rows = Tensor
OWN = "the base's own numbers"


def first_rows(matrix: Rows, n: int) -> Rows:
    dtype, (_, width), data = matrix
    return dtype, (n, width), data[: n * width * 4]


def head_of_untied() -> Rows:
    values = np.frombuffer(base_embedding()[2], "<f4") + np.float32(0.5)
    return "F32", (VOCAB, HIDDEN), values.astype("<f4").tobytes()


def one_bit_off(matrix: Rows) -> Rows:
    dtype, shape, data = matrix
    return dtype, shape, data[:-4] + bytes([data[-4] ^ 1]) + data[-3:]


def save(it: Specimen, embedding: Rows, head: Rows) -> None:
    it.tensors |= {f"{EMBEDDING}.weight": embedding, f"{HEAD}.weight": head}
    it.write()


def planned_tensors(it: Specimen, deployment: Deployment) -> set[str]:
    assert it.base
    planned = plan(read_adapter(it.directory), read_base_model(it.base), deployment)
    ledger = {line.key: line.how for line in planned.ledger if line.key in (f"{EMBEDDING}.weight", f"{HEAD}.weight")}
    assert set(ledger.values()) == {OWN}
    return {tensor.name for tensor in planned.files[-1].tensors}


@pytest.mark.parametrize("rows", [VOCAB, VOCAB - 5])
@pytest.mark.parametrize("tied", [True, False])
def test_the_bases_own_ends_are_in_no_lora_file(rows: int, tied: bool, specimen: Specimen, bases: Path) -> None:
    """All of them, or the first rows: resize_token_embeddings took spare ones away."""
    specimen.base = bases / ("tied.gguf" if tied else "untied.gguf")
    head = base_embedding() if tied else head_of_untied()
    save(specimen, first_rows(base_embedding(), rows), first_rows(head, rows))
    assert open_for(specimen.report()) == set(EVERY)
    names = planned_tensors(specimen, Deployment())
    assert names
    assert not {name for name in names if name.startswith(("token_embd", "output"))}


def test_one_bit_is_a_change(untied: Specimen) -> None:
    save(untied, base_embedding(), one_bit_off(head_of_untied()))
    report = untied.report()
    assert codes(report) == ["HD010"]
    assert [finding.where for finding in report.findings] == [f"{HEAD}.weight"]
    assert open_for(report) == set(MODEL)


def test_without_numbers_they_may_be_any(untied: Specimen) -> None:
    save(untied, base_embedding(), head_of_untied())
    assert open_for(untied.report(values=False)) == set(MODEL)


def test_a_quantised_base_can_not_tell(specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_gguf(tmp_path / "quantised.gguf", outtype="Q8_0")
    save(specimen, base_embedding(), base_embedding())
    told = [finding.message for finding in specimen.report().findings if finding.code == "HD010"]
    assert told
    assert all("its Q8_0 can't tell" in message for message in told)


def test_an_unchanged_half_of_a_pair_stays_as_it_is(specimen: Specimen, bases: Path, tmp_path: Path) -> None:
    """Untied by training, with one end as it began: the other end's numbers are not its own."""
    with_tokens(specimen, bases)
    save(specimen, tensor(VOCAB, HIDDEN, seed=7), base_embedding())
    assert specimen.base
    deployment = Deployment("model", untie=True, outtype="f32")
    write(plan(read_adapter(specimen.directory), read_base_model(specimen.base), deployment), tmp_path / "model.gguf")
    found = {name: values_of(tmp_path / "model.gguf", f"{name}.weight") for name in ("token_embd", "output")}
    for name, (_, shape, data) in (("token_embd", tensor(VOCAB, HIDDEN, seed=7)), ("output", base_embedding())):
        assert np.array_equal(found[name], np.frombuffer(data, "<f4").reshape(shape))


@pytest.mark.parametrize(("same", "expected"), [(True, []), (False, ["LO007"])])
def test_a_norm_of_a_checkpoint_is_compared_too(same: bool, expected: list[str], specimen: Specimen) -> None:
    specimen.base = on_checkpoint(specimen)
    norm = weights()["model.norm.weight"]
    specimen.tensors[f"{PREFIX}.model.norm.weight"] = norm if same else one_bit_off(norm)
    specimen.config["modules_to_save"] = ["norm"]
    specimen.write()
    assert codes(specimen.report()) == expected


def test_what_peft_computes_is_planned_as_it_was_judged(specimen: Specimen, tmp_path: Path) -> None:
    """PiSSA's first factors are computed again; the ends beside them are the base's own all the same."""
    pytest.importorskip("peft")
    specimen.base = write_gguf(tmp_path / "base.gguf", seed=3)
    specimen.config["init_lora_weights"] = "pissa"
    save(specimen, base_embedding(), base_embedding())
    assert not {name for name in planned_tensors(specimen, Deployment()) if name.startswith(("token_embd", "output"))}
