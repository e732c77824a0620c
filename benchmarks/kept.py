"""What each type of a quantised file keeps, over adapters and seeds. `python -m benchmarks.kept FOLDER`.

Three adapters of rank 16, each trained with two seeds on the two real models, and `adapter-to-gguf --compare-types`
of each. Both bases are numbers of quantised files (fixtures/real.py), so the control is the same adapters over the base
moved off that grid: uniform noise of a whole Q4_1 step (the range of 32 numbers in a row, over 15), rounded to BF16.

A line for each comparison goes to FOLDER/kept.jsonl as soon as it is made, and what is there is not made again.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from benchmarks.bench import BIN
from fixtures.adapters import load_base
from fixtures.real import GEMMA3, SMOLLM2, RealModel
from fixtures.train import TEXTS

N_STEPS: Final = 24
SEEDS: Final = (1, 2)
MODELS: Final = (SMOLLM2, GEMMA3)
BASES: Final = ("on the grid", "moved off it")


class Recipe(NamedTuple):
    """What differs from a LoRA of rank 16 and alpha 32 on all linear modules, and AdamW's learning rate."""

    config: Mapping[str, Any]
    learning_rate: float


RECIPES: Final[Mapping[str, Recipe]] = {
    "plain": Recipe({}, 2e-4),
    "attention": Recipe({"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}, 1e-3),
    "rslora": Recipe({"use_rslora": True}, 5e-4),
}


def main() -> int:
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    found = list(_read(folder / "kept.jsonl"))
    with (folder / "kept.jsonl").open("a", encoding="utf-8") as out:
        for model, seed, where, recipe in product(MODELS, SEEDS, BASES, RECIPES):
            case = {"model": str(model), "base": where, "recipe": recipe, "seed": seed}
            if any(case.items() <= row.items() for row in found):
                continue
            base = model.hf if where == BASES[0] else _moved(model, folder / f"{model}-moved")
            types = _compared(_trained(model, recipe, seed, folder / f"{model}-{recipe}-{seed}"), base)
            found.append({**case, "types": types})
            print(json.dumps(found[-1]), file=out, flush=True)
            print(*case.values(), *(f"{of['type']} {of['kept']:.2f}" for of in types), flush=True)
    print(*_table(found), sep="\n")
    return 0


def _read(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


def _trained(model: RealModel, recipe: str, seed: int, directory: Path) -> Path:
    if directory.exists():
        return directory
    (config, learning_rate), base = RECIPES[recipe], load_base(model.hf)
    torch.manual_seed(seed)  # of lora_A, and below of the order of the texts
    wanted = {"task_type": "CAUSAL_LM", "r": 16, "lora_alpha": 32, "target_modules": "all-linear", **config}
    peft_model, tokenizer = get_peft_model(base, LoraConfig(**wanted)), AutoTokenizer.from_pretrained(model.hf)
    learning = [parameter for parameter in peft_model.parameters() if parameter.requires_grad]
    optimizer, order = torch.optim.AdamW(learning, lr=learning_rate), torch.randperm(len(TEXTS)).tolist()
    for i in islice(cycle(order), N_STEPS):
        tokens = tokenizer(TEXTS[i], return_tensors="pt").input_ids
        optimizer.zero_grad()
        peft_model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
    peft_model.save_pretrained(str(directory))
    return directory


def _moved(model: RealModel, directory: Path) -> Path:
    """The base's directory with noise in every matrix, so that no number lies where a quantised file had it."""
    if directory.exists():
        return directory
    shutil.copytree(model.hf, directory)
    generator = torch.Generator().manual_seed(0)
    for path in directory.glob("*.safetensors"):
        moved = {name: _off_grid(tensor, generator) for name, tensor in load_file(path).items()}
        save_file(moved, path, metadata={"format": "pt"})
    return directory


def _off_grid(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if tensor.dim() != 2 or tensor.shape[1] % 32:
        return tensor
    blocks = tensor.float().reshape(-1, 32)
    step = (blocks.amax(1, keepdim=True) - blocks.amin(1, keepdim=True)) / 15
    noise = torch.rand(blocks.shape, generator=generator) - 0.5
    return (blocks + noise * step).reshape(tensor.shape).to(tensor.dtype)


def _compared(adapter: Path, base: Path) -> list[dict[str, Any]]:
    """Of each type what is kept of all deltas, of the tensor that keeps least, and of how many less than a half."""
    command: list[str | Path] = [
        BIN / "adapter-to-gguf",
        adapter,
        "--base",
        base,
        "--to",
        "model",
        "--compare-types",
        "--format",
        "json",
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [_summary(of) for of in json.loads(done.stdout)["types"]]


def _summary(of: Mapping[str, Any]) -> dict[str, Any]:
    shares = [tensor["share"] for tensor in of["tensors"]]
    figures = {"kept": of["kept"], "noise": of["noise"], "least": min(shares)}
    return {"type": of["type"], **figures, "n_below_half": sum(share < 0.5 for share in shares), "n": len(shares)}


def _table(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for model, where in product(map(str, MODELS), BASES):
        rows = [row["types"] for row in found if (row["model"], row["base"]) == (model, where)]
        if not rows:
            continue
        yield f"\n{model}, {where}, {len(rows)} adapters\n"
        yield "| type | kept of all deltas | noise | least | tensors below a half |\n|---|---|---|---|---|"
        for types in zip(*rows, strict=True):
            ranges = [_range([of[name] for of in types]) for name in ("kept", "noise", "least", "n_below_half")]
            yield f"| {types[0]['type']} | {' | '.join(ranges)} of {max(of['n'] for of in types)} |"


def _range(values: Sequence[float]) -> str:
    low, high = (f"{value:.3g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


if __name__ == "__main__":
    sys.exit(main())
