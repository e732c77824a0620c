"""llama-quantize itself: llama_model_quantize of llama-cpp-python, in a process of its own, for llama.cpp may abort.

    python tests/e2e/llama_quantize.py SOURCE TARGET FILE_TYPE

llama-cpp-python ships no wheels: `make test` compiles it where there is a compiler.
API: https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h
"""

import ctypes
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from gguf import GGMLQuantizationType

from converter.read.gguf_header import read_gguf_header

INSTALLED: Final = find_spec("llama_cpp") is not None


def llama_quantize(source: Path, target: Path, file_type: str) -> Path:
    """``llama-quantize source target file_type``; for gemma3 with ``--token-embedding-type bf16``."""
    command = [sys.executable, __file__, str(source), str(target), file_type]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def main(source: str, target: str, file_type: str) -> int:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{file_type}")
    if read_gguf_header(Path(source)).kv["general.architecture"] == "gemma3":
        params.token_embedding_type = GGMLQuantizationType.BF16
    return int(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
