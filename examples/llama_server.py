"""llama-server where none is installed: llama.cpp's own HTTP server, out of xllamacpp's wheel, by the same options.

`pip install '.[verify]'` brings it, without a compiler: `python -m examples.llama_server -m model.gguf --port 8080`.
It knows the options of docs/serving.md and refuses the others. The server is tools/server of llama.cpp, HTTP and all;
the binary of the same name has every option.
"""

import argparse
import threading
from collections.abc import Iterator
from contextlib import suppress

import xllamacpp


def main() -> None:
    server = xllamacpp.Server(_params(_options()))  # answers as long as there is such an object
    print(f"listening on {server.listening_address}", flush=True)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llama-server", allow_abbrev=False)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--lora", action="append", default=[], metavar="FILE,...")
    parser.add_argument("--lora-scaled", action="append", default=[], metavar="FILE:SCALE,...")
    parser.add_argument("--lora-init-without-apply", action="store_true")
    parser.add_argument("--no-cache-prompt", action="store_true")
    parser.add_argument("--cache-ram", type=int, metavar="MIB")
    parser.add_argument("-c", "--ctx-size", type=int, default=0)
    parser.add_argument("-t", "--threads", type=int)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    return parser.parse_args()


def _params(options: argparse.Namespace) -> xllamacpp.CommonParams:
    """The same settings that llama.cpp's common/arg.cpp makes of these options."""
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.lora_adapters = list(_loras(options))
    params.lora_init_without_apply = options.lora_init_without_apply
    params.cache_prompt = not options.no_cache_prompt
    params.n_ctx = options.ctx_size
    params.hostnames, params.port = [options.host], options.port
    if options.cache_ram is not None:
        params.cache_ram_mib = options.cache_ram
    if options.threads:
        params.cpuparams.n_threads = options.threads
    return params


def _loras(options: argparse.Namespace) -> Iterator[xllamacpp.CommonAdapterLoraInfo]:
    for path in ",".join(options.lora).split(",") if options.lora else ():
        yield xllamacpp.CommonAdapterLoraInfo(path, 1.0)
    for item in ",".join(options.lora_scaled).split(",") if options.lora_scaled else ():
        path, _, scale = item.rpartition(":")
        yield xllamacpp.CommonAdapterLoraInfo(path, float(scale))


if __name__ == "__main__":
    main()
