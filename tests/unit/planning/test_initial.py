"""An adapter whose initial one was taken out of the base (PiSSA and its like): delta minus initial delta, in numpy."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from converter.conversion import plan, write
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.derive.locate import read_initial_adapter
from converter.diagnostics import Deployment
from tests.rules.specimens import HEAD, HIDDEN, N_LAYER, PREFIX, SHAPES, VOCAB, Specimen, lora, tensor, write_gguf
from tests.unit.conversion import LORA, MODEL, values_of, write_base

DOWN, V = "mlp.down_proj", "self_attn.v_proj"
TENSORS = {DOWN: "blk.1.ffn_down.weight", V: "blk.1.attn_v.weight"}


def specimen(directory: Path, seed: int, base: Path, **config: object) -> Specimen:
    """down_proj of rank 4, v_proj of rank 2."""
    it = Specimen(directory, base)
    it.config |= {"target_modules": ["down_proj", "v_proj"], "rank_pattern": {"v_proj": 2}, **config}
    it.tensors = {}
    for i in range(N_LAYER):
        for name, rank in ((DOWN, 4), (V, 2)):
            it.tensors |= lora(f"{PREFIX}.model.layers.{i}.{name}", *SHAPES[name], rank=rank)
    rng = np.random.default_rng(seed)
    it.tensors = {
        key: (dtype, shape, rng.normal(0, 0.3, shape).astype("<f4").tobytes())
        for key, (dtype, shape, _) in it.tensors.items()
    }
    it.write()
    return it


def delta(it: Specimen, name: str, scaling: float) -> np.ndarray:
    a, b = (it.tensors[f"{PREFIX}.model.layers.1.{name}.lora_{factor}.weight"] for factor in "AB")
    b_values, a_values = (np.frombuffer(data, "<f4").reshape(shape).astype(float) for _, shape, data in (b, a))
    product: np.ndarray = scaling * b_values @ a_values
    return product


# lora_alpha is 32. One alpha serves the file in the first case only, where the pattern makes every scale 8.
CASES: dict[str, tuple[dict[str, object], dict[str, float]]] = {
    "one scale": ({"alpha_pattern": {"v_proj": 16}}, {DOWN: 8.0, V: 8.0}),
    "two scales": ({}, {DOWN: 8.0, V: 16.0}),
}


@pytest.mark.parametrize("deployment", [LORA, MODEL], ids=lambda it: it.kind)
@pytest.mark.parametrize("case", CASES)
def test_what_training_began_with_is_subtracted(case: str, deployment: Deployment, tmp_path: Path) -> None:
    config, scales = CASES[case]
    path = write_base(tmp_path / "base.gguf")
    it = specimen(tmp_path / "adapter", 1, path, init_lora_weights="lora_ga", **config)
    began = specimen(tmp_path / "began", 2, path, init_lora_weights="lora_ga", **config)
    adapter = replace(read_adapter(it.directory), initial=read_initial_adapter(began.directory))
    base, output = read_base_model(path), tmp_path / "out.gguf"
    write(plan(adapter, base, deployment), output)
    for name, stored in TENSORS.items():
        wanted = delta(it, name, scales[name]) - delta(began, name, scales[name])
        found = of_lora(output, stored) if deployment == LORA else values_of(output, stored) - values_of(path, stored)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def of_lora(path: Path, tensor: str) -> np.ndarray:
    """By get_scale in llama.cpp's src/llama-adapter.h: alpha / rank, of the factors in the file."""
    a, b = values_of(path, f"{tensor}.lora_a"), values_of(path, f"{tensor}.lora_b")
    product: np.ndarray = GGUFReader(path).fields["adapter.lora.alpha"].contents() / len(a) * b @ a
    return product


def test_a_saved_base_layer_is_what_was_left_of_the_base(tmp_path: Path) -> None:
    """Nothing is taken from it a second time."""
    path = write_gguf(tmp_path / "base.gguf", tied=False)
    head = {"target_modules": ["lm_head"], "init_lora_weights": "lora_ga"}
    made = []
    for seed, name in enumerate(("adapter", "began")):
        it = Specimen(tmp_path / name, path)
        it.config |= head
        it.tensors = lora(HEAD, VOCAB, HIDDEN)
        it.tensors[f"{HEAD}.lora_A.weight"] = tensor(4, HIDDEN, seed=seed + 5)
        it.tensors[f"{HEAD}.base_layer.weight"] = tensor(VOCAB, HIDDEN, seed=3)
        it.write()
        made.append(it)
    adapter = replace(read_adapter(made[0].directory), initial=read_initial_adapter(made[1].directory))
    write(plan(adapter, read_base_model(path), MODEL), tmp_path / "out.gguf")
    a, b, own = (
        np.frombuffer(made[0].tensors[f"{HEAD}.{part}.weight"][2], "<f4").reshape(shape).astype(float)
        for part, shape in (("lora_A", (4, HIDDEN)), ("lora_B", (VOCAB, 4)), ("base_layer", (VOCAB, HIDDEN)))
    )
    np.testing.assert_allclose(values_of(tmp_path / "out.gguf", "output.weight"), own + 8.0 * b @ a, rtol=1e-6)
