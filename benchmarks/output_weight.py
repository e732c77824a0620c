"""Which of llama.cpp's loaders read output.weight, measured: a tiny random model of every architecture is run.

    python benchmarks/output_weight.py      writes docs/output_weight.md

What a loader wants it says itself: its first complaint names a key, a tensor or a shape, which is added, until the file
loads or the complaint is one that isn't understood. Then a head of its own is put into the file, and looked for in the
logits.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from gguf import MODEL_ARCH_NAMES, GGUFWriter

from converter.architectures import NAMES
from converter.verification.llama_cpp import LlamaCpp, LlamaCppFailed

DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "output_weight.md"
N_VOCAB, HIDDEN = 64, 64
TOKENS: Final = (tuple(range(3, 19)),)
HEAD: Final = "output.weight"

Outcome = Literal["optional", "wanted", "refused"]
Value = bool | int | float

SIZES: Final[Mapping[str, Value]] = {
    "vocab_size": N_VOCAB,
    "context_length": 512,
    "embedding_length": HIDDEN,
    "block_count": 2,
    "feed_forward_length": 128,
    "attention.head_count": 4,
    "attention.head_count_kv": 4,
    "attention.key_length": 16,
    "attention.value_length": 16,
    "rope.dimension_count": 16,
}
EXPERTS: Final[Mapping[str, Value]] = {
    "expert_count": 4,
    "expert_used_count": 2,
    "expert_feed_forward_length": 32,
}
FUSED: Final[Mapping[str, tuple[int, ...]]] = {f"blk.{i}.attn_qkv.weight": (192, HIDDEN) for i in range(2)}
# Numbers for keys that a loader asks for, by how the key ends.
KEYS: Final[Mapping[str, Value]] = {
    "epsilon": 1e-5,
    "_scale": 1.0,
    "softcapping": 30.0,
    "freq_base": 10000.0,
    "clamp_kqv": 8.0,
    "max_alibi_bias": 8.0,
    "use_parallel_residual": True,
    "sliding_window": 8,
    "group_count": 4,
    "leading_dense_block_count": 0,
    "expert_shared_count": 1,
    "expert_feed_forward_length": 32,
    "expert_shared_feed_forward_length": 32,
    "expert_weights_scale": 1.0,
    "interleave_moe_layer_step": 2,
    "expert_gating_func": 1,
}
MISSING_KEY: Final = re.compile(r"key not found in model: \S+?\.(\S+)")
MISSING_TENSOR: Final = re.compile(
    r"(?:missing tensor|check_tensor_dims: tensor) '([^']+)'(?: not found|$)", re.MULTILINE
)
WRONG_SHAPE: Final = re.compile(r"tensor '([^']+)' has wrong shape; expected\s+([\d, ]+), got")


@dataclass
class TinyFile:
    """A model of an architecture, as far as its loader has said what it wants."""

    architecture: str
    keys: dict[str, Value]
    shapes: dict[str, tuple[int, ...]]

    def write(self, path: Path, seed: int = 0) -> Path:
        """Write it; ``seed`` decides the head's numbers."""
        writer = GGUFWriter(path, self.architecture)
        writer.add_tokenizer_model("no_vocab")
        for key, value in self.keys.items():
            _add(writer, f"{self.architecture}.{key}", value)
        for i, (name, shape) in enumerate(self.shapes.items()):
            writer.add_tensor(name, _random(shape, i + (seed if name == HEAD else 0)))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def follow(self, complaint: str) -> bool:
        """Add what the loader complains of; False where it isn't understood, or was added before."""
        before = dict(self.keys), dict(self.shapes)
        if missing := MISSING_KEY.search(complaint):
            self.keys |= [(missing[1], value) for end, value in KEYS.items() if missing[1].endswith(end)][:1]
        elif missing := MISSING_TENSOR.search(complaint):
            self.shapes.setdefault(missing[1], (1,))
        elif wrong := WRONG_SHAPE.search(complaint):
            self.shapes[wrong[1]] = tuple(int(n) for n in reversed(wrong[2].split(",")))
        return before != (self.keys, self.shapes)


def _add(writer: GGUFWriter, key: str, value: Value) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)


def _random(shape: tuple[int, ...], seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) / np.float32(shape[-1] ** 0.5)


def measure(architecture: str, llama_cpp: LlamaCpp, directory: Path) -> Outcome | None:
    """What a loader does with output.weight; None where no tiny model of it could be made to run."""
    path, embedding = directory / "model.gguf", {"token_embd.weight": (N_VOCAB, HIDDEN)}
    # What a loader doesn't ask for and its graph can't do without: experts, or one matrix for q, k and v.
    for keys, shapes in ((SIZES, embedding), ({**SIZES, **EXPERTS}, embedding), (SIZES, {**embedding, **FUSED})):
        file = TinyFile(architecture, dict(keys), dict(shapes))
        if _made_to_run(file, path, llama_cpp):
            return _outcome(file, path, llama_cpp)
    return None


def _outcome(file: TinyFile, path: Path, llama_cpp: LlamaCpp) -> Outcome | None:
    wanted = HEAD in file.shapes
    before = llama_cpp.logits(path, TOKENS)[0]
    file.shapes[HEAD] = (N_VOCAB, HIDDEN)
    try:
        after = llama_cpp.logits(file.write(path, seed=1000), TOKENS)[0]
    except LlamaCppFailed as failed:
        return "refused" if "wrong number of tensors" in str(failed) else None
    if np.array_equal(before, after) or not np.isfinite(after).all():
        return None
    return "wanted" if wanted else "optional"


def _made_to_run(file: TinyFile, path: Path, llama_cpp: LlamaCpp) -> bool:
    for _ in range(400):
        try:
            llama_cpp.logits(file.write(path), TOKENS)
        except LlamaCppFailed as failed:
            if not file.follow(str(failed)):
                return False
        else:
            return True
    return False


def table(outcomes: Mapping[str, Outcome]) -> str:
    """The document."""
    build = version("xllamacpp").rpartition(".")[2]
    ours, others = ({n: o for n, o in outcomes.items() if (n in NAMES) is known} for known in (True, False))
    return "\n".join(
        [
            "# Which loaders read output.weight",
            "",
            "Written by `python benchmarks/output_weight.py`, which runs a tiny random model of each architecture in",
            f"real llama.cpp (build {build}). What becomes of a file with a head of its own:",
            "",
            "- **read**: it is loaded, and the head is seen in the logits; without one the embedding is the head;",
            "- **wanted**: the same, and a file without one is refused;",
            "- **refused**: `done_getting_tensors: wrong number of tensors`; the head is the embedding, for good.",
            "",
            "## Architectures that are converted here",
            "",
            *_rows(ours),
            "",
            "## Others",
            "",
            "Architectures that are missing could not be made to run as a tiny random model.",
            "",
            *_rows(others),
            "",
        ]
    )


_WORDS: Final[Mapping[Outcome, str]] = {"optional": "read", "wanted": "wanted", "refused": "refused"}


def _rows(outcomes: Mapping[str, Outcome]) -> list[str]:
    rows = [f"| {name} | {_WORDS[outcome]} |" for name, outcome in sorted(outcomes.items())]
    return ["| general.architecture | output.weight |", "|---|---|", *rows]


def measured() -> dict[str, Outcome]:
    """The outcome of every architecture of gguf's that could be made to run."""
    outcomes: dict[str, Outcome] = {}
    with TemporaryDirectory() as directory, LlamaCpp() as llama_cpp:
        for name in sorted(MODEL_ARCH_NAMES.values()):
            outcome = measure(name, llama_cpp, Path(directory))
            if outcome:
                outcomes[name] = outcome
    return outcomes


if __name__ == "__main__":
    DOCUMENT.write_text(table(measured()), encoding="utf-8")
