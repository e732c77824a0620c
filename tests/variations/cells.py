"""One cell of the table: a variation on a base in a deployment, converted and judged by the commands a user has.

What came out is either exact, by two proofs, or a refusal; everything else is a failure of the test.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

from converter.cli.check import main as adapter_check
from converter.cli.to_gguf import main as adapter_to_gguf
from converter.derive.adapter import Adapter, read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import OPTIONS, Kind
from converter.read.gguf_header import read_gguf_header
from converter.verification.comparison import kl_divergence, log_softmax
from converter.verification.hosts import is_hosted, prove_hosted, prove_hosted_lora
from converter.verification.llama_cpp import LlamaCpp
from converter.verification.lora_pairs import prove_lora
from converter.verification.reference import Reference
from converter.verification.tensor_proof import TensorProof
from converter.verification.tensors import prove_model
from converter.verification.verification import Deployed, DeployedLora, DeployedModel
from fixtures.tiny import TinyModel
from fixtures.variation import BASES, Truth, Variation, save_variation

LARGEST_RATIO = 1e-4
LEAST_EFFECT = 0.05  # nats: a hundred thousand times the noise of the noisiest base


class Saved:
    """A variation's adapter on one base, and the truth about it."""

    def __init__(self, variation: Variation, column: str, directory: Path) -> None:
        self.variation = variation
        self.column = column
        self.base: TinyModel = BASES[column]
        self.adapter = directory / "adapter"
        self.truth: Truth = save_variation(variation, self.base, self.adapter)

    @property
    def options(self) -> list[str]:
        """What both commands are to be told beside the deployment."""
        initial = self.truth.initial
        return ["--base", str(self.truth.gguf), *(["--initial-adapter", str(initial)] if initial else [])]

    def read(self) -> Adapter:
        initial = read_adapter(self.truth.initial) if self.truth.initial else None
        return replace(read_adapter(self.adapter), initial=initial)

    @cached_property
    def reference(self) -> Reference:
        return Reference(self.base.hf, self.read())

    @property
    def effect(self) -> float:
        return _kl(self.truth.peft, self.truth.base)


def expected(variation: Variation, column: str, kind: Kind) -> str | None:
    """The code that refuses the deployment; None where it is exact."""
    return variation.refusals(column).get(kind)


def convert(saved: Saved, kind: Kind, output: Path) -> Result:
    options = [*saved.options, *OPTIONS[kind].split(), "-o", str(output), "--format", "json"]
    return CliRunner().invoke(adapter_to_gguf, [str(saved.adapter), *options])


def check(saved: Saved, kind: Kind) -> dict[str, Any]:
    """What adapter-check says of it, as data."""
    options = [*saved.options, *OPTIONS[kind].split(), "--format", "json"]
    report: dict[str, Any] = json.loads(CliRunner().invoke(adapter_check, [str(saved.adapter), *options]).stdout)
    return report


def errors(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The findings that stop the deployment."""
    return [finding for adapter in report["adapters"] for finding in adapter["findings"] if finding["stops"]]


def deployed(saved: Saved, kind: Kind, output: Path) -> Deployed:
    match kind:
        case "lora":
            return DeployedLora(output, saved.truth.gguf)
        case "untie-lora":
            return DeployedLora(output / "lora.gguf", output / "untied-base.gguf")
        case _:
            return DeployedModel(output, saved.truth.gguf)


def ratio(saved: Saved, files: Deployed, llama_cpp: LlamaCpp) -> float:
    """KL(PEFT || deployed) / KL(PEFT || base), PEFT's logits as they were when the adapter was saved."""
    lora = files.lora if isinstance(files, DeployedLora) else None
    # grok's attention is global: its context ends at Gemma 2's window.
    kv = read_gguf_header(files.model).kv
    n = int(str(kv["grok.context_length"])) if kv["general.architecture"] == "grok" else None
    served = np.stack(llama_cpp.logits(files.model, [it[:n] for it in saved.truth.sequences], lora=lora))
    peft, base = saved.truth.peft[:, :n], saved.truth.base[:, :n]
    return _kl(peft, served) / (_kl(peft, base) if saved.variation.has_effect else 1.0)


def tensor_proof(saved: Saved, files: Deployed) -> TensorProof:
    """Every tensor of the output against PEFT's weights in float64."""
    model = read_base_model(files.model)
    if isinstance(files, DeployedLora):
        prove_pairs = prove_hosted_lora if is_hosted(model) else prove_lora
        return prove_pairs(files.lora, model, saved.reference, lambda *_: None)
    base = read_base_model(saved.truth.gguf)
    return (prove_hosted if is_hosted(model) else prove_model)(model, base, saved.reference, lambda *_: None)


def delete(output: Path) -> None:
    """Make room: a table of models is gigabytes."""
    if output.is_dir():
        shutil.rmtree(output)
    else:
        output.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor key or a config field of an adapter."""

    kind: str
    key: str


def parts(adapter: Path) -> list[Part]:
    """Every part of an adapter that must be accounted for, read from its files alone."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    with (adapter / "adapter_model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    keys = [key for key in header if key != "__metadata__"]
    return [*(Part("tensor", key) for key in keys), *(Part("config", field) for field in config)]


def _kl(reference: np.ndarray, other: np.ndarray) -> float:
    """Over the tokens that both know: new ones have no logit in the base."""
    n_vocab = min(reference.shape[-1], other.shape[-1])
    log_p, log_q = (log_softmax(logits[..., :n_vocab].astype(np.float64)) for logits in (reference, other))
    return float(kl_divergence(log_p, log_q).mean())
