"""Run llama.cpp's converter over directories. A process of its own: it has a gguf package of its own, too.

Standard input is a JSON list of jobs (tools/llama_cpp_sources.py). Standard output maps the GGUFs that failed to why.
"""

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any


def main() -> None:
    """Convert all, whatever becomes of each."""
    root = Path(sys.argv[1])
    sys.path[:0] = [str(root / "gguf-py"), str(root)]
    failed = {}
    with redirect_stdout(sys.stderr):
        for directory, path, outtype, as_stated, fuse in json.load(sys.stdin):
            try:
                _convert(Path(directory), Path(path), outtype, as_stated=as_stated, fuse=fuse)
            except Exception:  # noqa: BLE001  any fault of one model is that model's result
                failed[path] = traceback.format_exc()[-1500:]
    print(json.dumps(failed))


def _convert(directory: Path, path: Path, outtype: str, *, as_stated: bool, fuse: bool) -> None:
    """As main() of convert_hf_to_gguf.py does, with no word about a vocabulary."""
    import gguf
    import torch
    from conversion import ModelBase, ModelType, TextModel, get_model_architecture, get_model_class

    names = gguf.TensorNameMap
    before = dict(names.block_mappings_cfg)  # which the map of one architecture adds its names to
    try:
        with torch.inference_mode():
            found: Any = ModelBase.load_hparams(directory, False)
            model_class: Any = get_model_class(get_model_architecture(found, ModelType.TEXT))
            for text_model in _below(TextModel):
                text_model.set_vocab = _no_vocabulary
            own = {"set_vocab": _no_vocabulary, "model_arch": model_class.model_arch}
            own |= {"no_mtp": True} if model_class.supports_mtp_export else {}
            ours = type(model_class.__name__, (model_class,), own)
            # transformers 5 drops or respells what the converter asks for (rotary_pct, layer_types).
            stated = json.loads((directory / "config.json").read_text(encoding="utf-8"))
            hparams = stated if as_stated else {**found, **stated}
            ours(
                directory, gguf.LlamaFileType[outtype], path, hparams=hparams, fuse_qkv=fuse, fuse_gate_up_exps=fuse
            ).write()
    finally:
        names.block_mappings_cfg.clear()
        names.block_mappings_cfg.update(before)


def _below(base: Any) -> Iterator[Any]:
    """All classes that come of one: models may hand their work to another one."""
    for below in base.__subclasses__():
        yield below
        yield from _below(below)


def _no_vocabulary(model: Any) -> None:
    writer = model.gguf_writer
    if "tokenizer.ggml.model" not in writer.kv_data[0]:
        writer.add_tokenizer_model("no_vocab")
    if f"{writer.arch}.vocab_size" not in writer.kv_data[0]:
        writer.add_vocab_size(model.hparams["vocab_size"])


if __name__ == "__main__":
    main()
