"""The library's door to ``adapter-verify``: both proofs of one deployment, and the verdict."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG

from converter.derive.adapter import Adapter
from converter.derive.base_model import read_base_model
from converter.derive.module_paths import EMBEDDING
from converter.errors import JUDGED_BAD, ConverterError
from converter.read.files import could_not_read, mode_of
from converter.read.gguf_header import read_gguf_header
from converter.verification.comparison import LogitsComparison, compare_logits
from converter.verification.hosts import is_hosted, prove_hosted, prove_hosted_lora
from converter.verification.llama_cpp import LlamaCpp, LlamaCppFailed
from converter.verification.lora_pairs import prove_lora
from converter.verification.prompts import Prompts, Sequences, sequences_of
from converter.verification.reference import Reference
from converter.verification.samples import Served, samples
from converter.verification.tensor_proof import TensorProof
from converter.verification.tensors import prove_model
from converter.verification.thresholds import COARSE, Threshold, lora_threshold, model_threshold
from converter.verification.untabled import with_places

# Step, how many are done, how many there are.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class DeployedModel:
    """One merged GGUF; ``base`` is the GGUF it was made from, where it is at hand.

    ``quantized_base`` is a GGUF without the adapter, whose figures are shown beside: nothing is judged by it.
    """

    model: Path
    base: Path | None = None
    quantized_base: Path | None = None

    @property
    def file(self) -> Path:
        """The file that is judged."""
        return self.model

    @property
    def lora_file(self) -> None:
        """No LoRA is served on it."""


@dataclass(frozen=True, slots=True)
class DeployedLora:
    """A LoRA GGUF and the GGUF it is served on."""

    lora: Path
    base: Path

    @property
    def file(self) -> Path:
        """The file that is judged."""
        return self.lora

    @property
    def lora_file(self) -> Path:
        """The LoRA that is served on the model."""
        return self.lora

    @property
    def quantized_base(self) -> None:
        """None but ``base``, which is what the LoRA is served on."""

    @property
    def model(self) -> Path:
        """The GGUF that llama.cpp loads."""
        return self.base


Deployed = DeployedModel | DeployedLora


@dataclass(frozen=True, slots=True)
class Case:
    """An adapter, the base PEFT gets (a directory or a GGUF), what was deployed, and the tokens to try it on."""

    adapter: Adapter
    base: Path
    deployed: Deployed
    sequences: Sequences


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found. ``comparison`` is None where llama.cpp failed; ``llama_cpp`` then says how."""

    adapter: Path
    deployed: Deployed
    threshold: Threshold
    tensors: TensorProof
    comparison: LogitsComparison | None
    llama_cpp: str | None

    @property
    def passed(self) -> bool:
        """Whether both proofs hold."""
        return not any(self.failures)

    @property
    def failures(self) -> Iterator[str]:
        """Why the deployment is not proven, a line each."""
        if self.llama_cpp:
            yield self.llama_cpp
        if self.comparison:
            yield from _logits_failures(self.comparison, self.threshold)
        yield from (f"tensor proof: {fault}" for fault in self.tensors.faults)


def _logits_failures(comparison: LogitsComparison, threshold: Threshold) -> Iterator[str]:
    if not threshold.has_effect(comparison):
        yield (
            f"the adapter has too little effect to prove anything: KL(PEFT || base) is {comparison.effect:.3g}, wanted "
            f"{threshold.effect_per_floor:g} times the noise floor of {comparison.floor or 0:.3g}; texts like those it "
            "was trained on (--prompts) show more of it, and a high floor may mean that --base is another model"
        )
    if not threshold.allows(comparison):
        wanted = f"wanted at most {threshold.ratio:g} ({threshold.reason})"
        yield f"effect ratio {comparison.effect_ratio:.3g}, {wanted}{_advice(comparison, threshold)}"


def _advice(comparison: LogitsComparison, threshold: Threshold) -> str:
    # Up to 0.026 was measured of correct conversions to Q8_0, with texts that the adapter barely moves.
    if threshold is not COARSE or not comparison.effect_ratio < 0.05:
        return ""
    return "; noise of 8-bit types can be this large on texts unlike the adapter's own, which --prompts can give"


def verify(
    adapter: Adapter,
    base: Path,
    deployed: Deployed,
    *,
    prompts: Prompts = None,
    progress: Progress = lambda *_: None,
) -> Verification:
    """Prove a deployment of ``adapter`` against PEFT on ``base``, a Hugging Face directory or a GGUF.

    Without ``prompts`` it is tried on built-in texts. A merged model's base GGUF is ``base`` itself, if it is one and
    no other is named. Raises ConverterError where it can't be found out.
    """
    adapter.require_numbers()
    for fault in adapter.faults:
        raise ConverterError(f"{fault.path}: {fault.message}; adapter-check says more", status=JUDGED_BAD)
    if deployed.base is None and base.is_file():
        deployed = replace(deployed, base=base)
    for path in filter(None, (deployed.file, deployed.base, deployed.quantized_base)):
        with could_not_read(path):
            if not S_ISREG(mode_of(path)):
                raise ConverterError(f"{path}: no such GGUF file")
    with LlamaCpp() as llama:
        for path in filter(None, (deployed.base, deployed.quantized_base)):
            _refuse_broken_base(llama, path)
        sequences = sequences_of(prompts, llama, _tokenizing(llama, deployed))
        return prove(Case(adapter, base, deployed, sequences), llama, progress)


def _refuse_broken_base(llama: LlamaCpp, base: Path) -> None:
    """Raise ConverterError, status 2, where llama.cpp can't run the base: that is no verdict on the adapter."""
    try:
        llama.logits(base, [[0]])
    except LlamaCppFailed as error:
        raise ConverterError(f"{base}: llama.cpp can't run the base: {error.message}") from error


def _tokenizing(llama: LlamaCpp, deployed: Deployed) -> Path:
    """The deployed model, which may know new tokens; its base where llama.cpp can't load it, as the proof will tell."""
    try:
        llama.n_vocab(deployed.model)
    except LlamaCppFailed:
        return deployed.base or deployed.model
    return deployed.model


def refuse_longer(model: Path, sequences: Sequences) -> None:
    """Beyond a file's context llama.cpp only warns; Gemma 2 hosted as grok is another model there."""
    kv = read_gguf_header(model).kv
    context, longest = kv.get(f"{kv.get('general.architecture')}.context_length"), max(map(len, sequences))
    if isinstance(context, int) and longest > context:
        raise ConverterError(
            f"{model}: its context ends at {context} tokens, a sequence has {longest}; give shorter ones with --tokens"
        )


def _refuse_unknown(case: Case, reference: Reference) -> None:
    """An adapter may be of a base without its spare rows: the deployed file can be asked more than PEFT's model."""
    n_rows, highest = reference.shape(f"{EMBEDDING}.weight")[0], max(map(max, case.sequences))
    if highest >= n_rows:
        raise ConverterError(
            f"{case.adapter.path}: its model has {n_rows} rows, a sequence has the token {highest}; give others with "
            "--prompts or --tokens"
        )


def prove(case: Case, llama: LlamaCpp, progress: Progress = lambda *_: None) -> Verification:
    """Prove one case in a llama.cpp that may serve others too, or say what is wrong with it.

    Raises ConverterError where that can't be found out: the adapter or the base can't be loaded.
    """
    refuse_longer(case.deployed.model, case.sequences)
    llama.release()
    progress("loading PEFT", 0, 1)
    reference = Reference(case.base, case.adapter)
    _refuse_unknown(case, reference)
    proof, threshold = _prove_tensors(case, reference, lambda done, of: progress("tensors", done, of))
    reference.let_go()
    deployed = case.deployed
    served = Served(deployed.model, deployed.lora_file, deployed.base, deployed.quantized_base)
    try:
        each = samples(served, case.sequences, reference, llama, lambda done, of: progress("logits", done, of))
        comparison, failure = compare_logits(each), None
    except LlamaCppFailed as error:
        comparison, failure = None, error.message
    return Verification(case.adapter.path, case.deployed, threshold, proof, comparison, failure)


def _prove_tensors(
    case: Case, reference: Reference, progress: Callable[[int, int], None]
) -> tuple[TensorProof, Threshold]:
    deployed = case.deployed
    model = with_places(read_base_model(deployed.model), deployed.base, case.base, case.adapter)
    if isinstance(deployed, DeployedLora):
        types = {tensor.type.name for shard in model.shards for tensor in shard.tensors}
        prove_pairs = prove_hosted_lora if is_hosted(model) else prove_lora
        return prove_pairs(deployed.lora, model, reference, progress), lora_threshold(types)
    base = read_base_model(deployed.base) if deployed.base else None
    proof = (prove_hosted if is_hosted(model) else prove_model)(model, base, reference, progress)
    touched = {check.type for check in proof.checks if check.type and check.touched}
    untouched = {check.type for check in proof.checks if check.type and not check.touched}
    return proof, model_threshold(touched, untouched)
