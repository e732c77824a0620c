"""What the reference holds at a time, of a model that is nearly all head: a head of 262,144 rows with DoRA on it.

Counted in bytes that torch allocates: what the process takes in all is measured end to end, on Gemma 3.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from converter.derive.adapter import read_adapter
from converter.transformers_base import quiet
from converter.verification.prompts import batches
from converter.verification.reference import Reference
from converter.verification.stored_weights import StoredWeight

HIDDEN, VOCAB, LAYERS = 32, 262_144, 6
HEAD = VOCAB * HIDDEN * 4
TOKENS = (1, 2, 3, 70_000, 5, 6, 262_143)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wide")
    torch.manual_seed(20)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    with quiet():
        model: Any = LlamaForCausalLM(config)
        model.save_pretrained(path / "base")
        targets = ["lm_head", "embed_tokens", "up_proj"]
        lora = LoraConfig(r=4, use_dora=True, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
        peft = get_peft_model(model, lora)
        peft.save_pretrained(str(path / "adapter"), save_embedding_layers=False)
        with torch.no_grad():
            np.save(path / "logits.npy", peft.eval()(torch.tensor([TOKENS])).logits[0].numpy())
    return path


def model_of(reference: Reference) -> Any:
    return reference.forward.model


@pytest.fixture(scope="module")
def reference(directory: Path) -> Reference:
    return Reference(directory / "base", read_adapter(directory / "adapter"))


def peak_of(run: Any) -> int:
    """The most bytes that torch held at a time while `run` ran, beyond those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        run()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def test_nothing_of_the_base_is_held(reference: Reference) -> None:
    base = [parameter for name, parameter in model_of(reference).named_parameters() if "lora" not in name]
    assert {type(parameter) for parameter in base} == {StoredWeight}
    assert all(parameter.stored.kept is None for parameter in base)


def test_a_head_with_dora_is_computed_in_parts_and_as_peft_does(directory: Path, reference: Reference) -> None:
    found: list[np.ndarray] = []
    assert peak_of(lambda: found.append(reference.logits(TOKENS))) < 2.2 * HEAD  # PEFT alone takes five times that
    wanted = np.load(directory / "logits.npy")
    assert np.abs(found[0] - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_a_merged_head_is_computed_in_parts(reference: Reference) -> None:
    name = "lm_head.weight"
    reference.let_go()
    assert peak_of(lambda: reference.weight(name, slice(1000, 2000))) < 1.2 * HEAD
    assert peak_of(lambda: reference.weight(name, slice(2000, 3000))) < 0.2 * HEAD  # the head itself is kept
    reference.let_go()


def test_layers_are_read_one_at_a_time(reference: Reference) -> None:
    layer = sum(parameter.numel() for parameter in model_of(reference).base_model.layers[0].parameters()) * 4
    held = [0]

    def count(*_: object) -> None:
        kept = [p.stored.kept for p in model_of(reference).parameters() if isinstance(p, StoredWeight)]
        held.append(sum(values.nbytes for values in kept if values is not None))

    handles = [module.mlp.register_forward_hook(count) for module in model_of(reference).base_model.layers]
    reference.states([TOKENS])
    for handle in handles:
        handle.remove()
    assert len(held) == LAYERS + 1
    assert 0 < max(held) <= layer


@pytest.mark.parametrize("sequences", [[TOKENS, (9, 8), (4,)], [TOKENS]])
def test_sequences_run_together_as_they_run_alone(reference: Reference, sequences: Sequence[tuple[int, ...]]) -> None:
    for sequence, states in zip(sequences, reference.states(sequences), strict=True):
        (alone,) = reference.states([sequence])
        assert states.tokens == sequence
        torch.testing.assert_close(states.values, alone.values, rtol=1e-5, atol=1e-6)


def test_batches_hold_every_sequence_once() -> None:
    sequences = tuple(tuple(range(n)) for n in (400, 500, 30, 40, 2000, 5, 6))
    found = list(batches(sequences, 1000))
    assert tuple(sequence for batch in found for sequence in batch) == sequences
    assert [len(batch) for batch in found] == [2, 2, 1, 2]
    assert all(len(batch) == 1 for batch in batches(sequences, 0))
