"""Adapters of mlx_lm, in its own two files: delta = scale * (lora_a @ lora_b)^T. What may mean another is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pytest

from converter import Deployment, Refused, check, convert, plan, read_adapter, read_base
from converter.diagnostics import Report
from fixtures.generated import Tensor, adapter_config, write_safetensors
from tests.rules.specimens import FFN, HIDDEN, RANK, VOCAB, codes, tensor
from tests.unit.conversion import LORA, MODEL, values_of, write_base

Floats = npt.NDArray[np.float32]
SCALE, RANK_OF_MLX = 20.0, 3  # scale * rank / rank is not exact by luck
MODULES = {"self_attn.q_proj": (64, HIDDEN), "self_attn.v_proj": (32, HIDDEN), "mlp.down_proj": (HIDDEN, FFN)}
CONFIG: Mapping[str, object] = {
    "fine_tune_type": "lora",
    "num_layers": 16,
    "lora_parameters": {"rank": RANK_OF_MLX, "scale": SCALE, "dropout": 0.0},
    "model": "mlx-community/Tiny-4bit",
    "iters": 1000,
    "lr_schedule": {"name": "cosine_decay", "arguments": [1e-5, 1000]},
    "train": True,
}


def factors(layers: tuple[int, ...] = (0, 1)) -> dict[str, Floats]:
    random = np.random.default_rng(5)
    return {
        f"model.layers.{i}.{name}.lora_{part}": random.normal(size=shape).astype("<f4")
        for i in layers
        for name, (n_out, n_in) in MODULES.items()
        for part, shape in (("a", (n_in, RANK_OF_MLX)), ("b", (RANK_OF_MLX, n_out)))
    }


def stored(values: Mapping[str, Floats]) -> dict[str, Tensor]:
    return {key: ("F32", array.shape, np.ascontiguousarray(array).tobytes()) for key, array in values.items()}


def write_mlx(
    directory: Path,
    tensors: Mapping[str, Tensor] | None = None,
    changes: Mapping[str, object] = MappingProxyType({}),
    name: str = "adapters",
) -> Path:
    directory.mkdir()
    config = {field: value for field, value in {**CONFIG, **changes}.items() if value is not None}
    (directory / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    write_safetensors(directory / f"{name}.safetensors", stored(factors()) if tensors is None else tensors)
    return directory


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base.gguf")


def judged(directory: Path, base: Path) -> Report:
    return check(read_adapter(directory), read_base(base), MODEL)


@pytest.mark.parametrize("name", ["adapters", "adapter_model"])
def test_its_delta_is_in_the_model_to_the_bit(name: str, base: Path, tmp_path: Path) -> None:
    directory, model = write_mlx(tmp_path / "adapter", name=name), tmp_path / "model.gguf"
    convert(directory, model, base=base, deployment=Deployment("model", outtype="f32"))
    for layer in (0, 1):
        for module, gguf in (("self_attn.v_proj", "attn_v"), ("mlp.down_proj", "ffn_down")):
            a, b = (factors()[f"model.layers.{layer}.{module}.lora_{part}"].astype(np.float64) for part in "ab")
            before = values_of(base, f"blk.{layer}.{gguf}.weight").astype(np.float64)
            wanted = (before + SCALE * (a @ b).T).astype(np.float32)
            np.testing.assert_allclose(values_of(model, f"blk.{layer}.{gguf}.weight"), wanted, rtol=1e-6, atol=1e-6)


def test_it_is_pefts_adapter_of_the_transposed_factors(base: Path, tmp_path: Path) -> None:
    peft = tmp_path / "peft"
    peft.mkdir()
    settings = {"r": RANK_OF_MLX, "lora_alpha": SCALE * RANK_OF_MLX, "base_model_name_or_path": "me/tiny"}
    config = adapter_config(["q_proj", "v_proj", "down_proj"], **settings)
    (peft / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    names = {"lora_a": "lora_A", "lora_b": "lora_B"}
    transposed = {f"base_model.model.{key[:-6]}{names[key[-6:]]}.weight": values.T for key, values in factors().items()}
    write_safetensors(peft / "adapter_model.safetensors", stored(transposed))
    for deployment in (LORA, MODEL):
        files = []
        for directory in (write_mlx(tmp_path / f"mlx-{deployment.to}"), peft):
            (written,) = convert(directory, tmp_path / "out.gguf", base=base, deployment=deployment)
            tensors = plan(read_adapter(directory), read_base(base), deployment).files[0].tensors
            files.append({t.name: values_of(written.path, t.name).tobytes() for t in tensors})
        assert files[0] == files[1]


def test_each_key_and_field_is_in_the_ledger(base: Path, tmp_path: Path) -> None:
    planned = plan(read_adapter(write_mlx(tmp_path / "adapter")), read_base(base))
    assert [line.key for line in planned.ledger] == [*factors(), *CONFIG]
    fates = {line.key: line.how for line in planned.ledger}
    assert fates["lora_parameters"] == "decides shape and scale of the deltas"
    assert fates["iters"] == "matters in training only"
    assert fates["model.layers.1.mlp.down_proj.lora_a"].startswith("read as base_model.model.model.layers.1.mlp.down")


def test_dora_is_merged_by_its_magnitudes(base: Path, tmp_path: Path) -> None:
    key = "model.layers.0.mlp.down_proj"
    own = {name: values for name, values in factors().items() if name.startswith(key)}
    before = values_of(base, "blk.0.ffn_down.weight").astype(np.float64)
    m = (np.linalg.norm(before, axis=1) * 1.1).astype("<f4")
    directory = write_mlx(tmp_path / "adapter", stored(own | {f"{key}.m": m}), {"fine_tune_type": "dora"})
    assert codes(judged(directory, base)) == ["LO011"]  # of a LoRA file
    convert(directory, tmp_path / "model.gguf", base=base, deployment=Deployment("model", outtype="f32"))
    adapted = before + SCALE * (own[f"{key}.lora_a"].astype(np.float64) @ own[f"{key}.lora_b"]).T
    wanted = (m / np.linalg.norm(adapted, axis=1))[:, None] * adapted
    np.testing.assert_allclose(values_of(tmp_path / "model.gguf", "blk.0.ffn_down.weight"), wanted, rtol=1e-5)


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "alpha": ({"lora_parameters": {"rank": 3, "alpha": 16, "scale": 10.0}}, "CF003"),
    "no scale": ({"lora_parameters": {"rank": 3}}, "CF003"),
    "scale": ({"lora_parameters": {"rank": 3, "scale": True}}, "CF003"),
    "rank": ({"lora_parameters": {"rank": 4, "scale": 10.0}}, "LO005"),
    "no parameters": ({"lora_parameters": None}, "CF003"),
    "layers": ({"num_layers": 1}, "CF017"),
    "no layers": ({"num_layers": None, "lora_layers": 16}, "CF003"),
    "full": ({"fine_tune_type": "full"}, "CF005"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_gives_another_delta_is_refused(why: str, base: Path, tmp_path: Path) -> None:
    changes, code = REFUSED[why]
    directory = write_mlx(tmp_path / "adapter", changes=changes)
    assert code in codes(judged(directory, base))
    with pytest.raises(Refused, match=code):
        convert(directory, tmp_path / "model.gguf", base=base, deployment=MODEL)


@pytest.mark.parametrize(
    ("module", "shapes"),
    [
        ("model.embed_tokens", ((VOCAB, RANK), (RANK, HIDDEN))),
        ("model.layers.0.mlp.switch_mlp.up_proj", ((4, RANK, HIDDEN), (4, FFN, RANK))),
    ],
)
def test_what_is_no_linears_is_refused(
    module: str, shapes: tuple[tuple[int, ...], tuple[int, ...]], base: Path, tmp_path: Path
) -> None:
    """Of an embedding it is the tied head's too; of experts it is laid out in another way."""
    more = {f"{module}.lora_{part}": tensor(*shape) for part, shape in zip("ab", shapes, strict=True)}
    report = judged(write_mlx(tmp_path / "adapter", stored(factors()) | more), base)
    told = [finding for finding in report.findings if finding.code == "LO004"]
    assert {finding.where for finding in told} == set(more)
    assert all("mlx_lm.fuse" in finding.message for finding in told)


def test_pefts_keys_beside_its_config_are_neither(base: Path, tmp_path: Path) -> None:
    """mlx_lm loads none of them, and PEFT reads another config."""
    key = "base_model.model.model.layers.0.mlp.down_proj"
    peft = {f"{key}.lora_A.weight": tensor(RANK_OF_MLX, FFN), f"{key}.lora_B.weight": tensor(HIDDEN, RANK_OF_MLX)}
    report = judged(write_mlx(tmp_path / "adapter", peft, name="adapter_model"), base)
    told = {finding.where: finding.message for finding in report.findings if finding.code == "LO004"}
    assert set(told) == set(peft)
    assert all("no key that mlx_lm writes of a linear" in message for message in told.values())


def test_its_weights_alone_are_missing(base: Path, tmp_path: Path) -> None:
    directory = write_mlx(tmp_path / "adapter")
    (directory / "adapters.safetensors").unlink()
    report = judged(directory, base)
    assert codes(report) == ["ST001"]
    assert any("adapters.safetensors" in finding.where for finding in report.findings)
