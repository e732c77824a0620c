"""What the demos share: commands run as a user runs them, and llama.cpp's answers."""

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from converter.verification.llama_cpp import LlamaCpp


def say(line: str) -> None:
    print(f"\n{line}", flush=True)


def run(command: str, *arguments: str | Path, expected: int = 0) -> None:
    say(f"$ {command} {' '.join(map(str, arguments))}")
    program = shutil.which(command, path=str(Path(sys.executable).parent)) or command
    status = subprocess.run([program, *map(str, arguments)], check=False).returncode
    if status != expected:
        sys.exit(f"{command} ended with status {status}; {expected} was expected")
    print(f"(exit status {status})")


def prompt(tokenizer: Any, question: str) -> str:
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    return text


def answers(asked: Any, question: str, served: Iterable[tuple[str, Path, Path | None]]) -> None:
    """Print what each (name, model, LoRA) answers, with stock llama.cpp."""
    say(f"llama.cpp, asked: {question}")
    with LlamaCpp() as llama_cpp:
        for name, model, lora in served:
            answer = llama_cpp.generate(model, prompt(asked, question), 40, lora)
            print(f"{name:>10} | {' '.join(answer.split())}")
