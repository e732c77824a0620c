"""What adapter-train makes, converted and served by real llama.cpp: every choice of head, for the target it suits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from converter.conversion import plan, write
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.training.run import train
from converter.training.settings import HEADS, Head, TrainingSettings
from converter.training.watch import Unwatched
from converter.verification.llama_cpp import LlamaCpp
from converter.verification.verification import Case, DeployedLora, DeployedModel, Verification, prove
from fixtures.tiny import TinyModel, token_sequences
from fixtures.trainable import chats, trainable

pytestmark = pytest.mark.llama
Trained = Callable[..., TrainingSettings]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    directory = tmp_path_factory.mktemp("trained")
    data, general = directory / "chats.jsonl", directory / "general.txt"
    data.write_text(chats(), encoding="utf-8")
    general.write_text("The river rises in the hills.", encoding="utf-8")
    done: dict[tuple[TinyModel, Head, int], TrainingSettings] = {}

    def of(base: TinyModel, head: Head, seed: int = 0) -> TrainingSettings:
        settings = TrainingSettings(
            base=trainable(base),
            data=str(data),
            output=directory / f"{base}-{head}-{seed}",
            head=head,
            r=4,
            lora_alpha=16.0,
            max_steps=8,
            learning_rate=3e-2,
            max_length=128,
            general_text=general,
            seed=seed,
        )
        if (base, head, seed) not in done:
            train(settings, Unwatched())
            done[base, head, seed] = settings
        return done[base, head, seed]

    return of


def served(settings: TrainingSettings, base: TinyModel, directory: Path) -> DeployedLora | DeployedModel:
    """Convert for the settings' own target, on a GGUF of the base: its fingerprint is the directory's."""
    adapter, model = read_adapter(settings.output), read_base_model(base.gguf)
    deployment = replace(settings.deployment, outtype="f32")
    (written,) = write(plan(adapter, model, deployment), directory / "out.gguf")
    return DeployedLora(written.path, base.gguf) if deployment.to == "lora" else DeployedModel(written.path, base.gguf)


def proof(settings: TrainingSettings, deployed: DeployedLora | DeployedModel, llama: LlamaCpp) -> Verification:
    case = Case(read_adapter(settings.output), settings.base, deployed, token_sequences(2, 24))
    return prove(case, llama, lambda *_: None)


@pytest.mark.parametrize("name", ["llama", "gemma", "gemma3", "qwen2"])
@pytest.mark.parametrize("head", HEADS)
def test_what_was_trained_is_served(
    name: str, head: Head, trained: Trained, tmp_path: Path, llama_cpp: LlamaCpp
) -> None:
    base = TinyModel(name)
    settings = trained(base, head)
    deployed = served(settings, base, tmp_path)
    right = proof(settings, deployed, llama_cpp)
    assert right.passed, list(right.failures)
    assert right.comparison
    assert right.comparison.effect_ratio < 1e-5
    wrong = proof(trained(base, head, seed=1), deployed, llama_cpp)  # the control: another run's adapter
    assert not wrong.passed
    assert wrong.comparison
    assert wrong.comparison.effect_ratio > 0.01
