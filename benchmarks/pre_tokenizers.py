"""Whether llama.cpp cuts texts as the tokenizers of converter/derive/pre_tokenizers.toml do, measured on random texts.

    python benchmarks/pre_tokenizers.py [N]      of N texts (100000), how many come out otherwise, and the shortest

Half a minute to three for each, on one core. The tokens are learned of uncut texts, so that every cut shows.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from transformers import AutoTokenizer

from converter.verification.llama_cpp import LlamaCpp
from fixtures.fuzzed_texts import fuzzed_texts
from fixtures.tokenizer_gguf import tokenizer_gguf
from fixtures.trained_tokenizers import DIFFERING, KINDS, write_byte_level

N_TOKENS: Final = 3000


def main() -> None:
    """Print a line for each pre-tokenizer."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with TemporaryDirectory() as folder, LlamaCpp() as llama_cpp:
        for kind in (*KINDS, *DIFFERING):
            found = differing(kind, n, Path(folder), llama_cpp)
            print(f"{kind}: {len(found)} of {n} texts differ", ascii(min(found, key=len)) if found else "", flush=True)


def differing(kind: str, n: int, folder: Path, llama_cpp: LlamaCpp) -> list[str]:
    """The texts that llama.cpp makes other tokens of."""
    directory = write_byte_level(kind, folder / kind, N_TOKENS, across=True)
    # Tokens of the same texts, in a directory whose cuts are known: only the name is the one that is measured.
    named = write_byte_level("gpt-2", folder / f"{kind}-named", N_TOKENS, across=True)
    gguf = tokenizer_gguf(named, N_TOKENS, folder / f"{kind}.gguf", pre=kind)
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    return [text for text in fuzzed_texts(n) if _ids(tokenizer, text) != llama_cpp.tokenize(gguf, text)]


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


if __name__ == "__main__":
    main()
