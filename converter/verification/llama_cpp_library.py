"""ctypes declarations of the few parts of llama.cpp that the worker calls, for one pinned build of xllamacpp.

The wheel carries llama.cpp's C API in its extension module. The parameter structs differ between builds
and say nothing of their own layout, so the version is pinned and the defaults are checked before any use.
API: https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h
"""

import ctypes
import importlib.metadata
import importlib.util
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int8, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any, Final

from converter.errors import ConverterError, how_to_install

XLLAMACPP_VERSION: Final = "2026.10.11549"
LOG_WARN: Final = 3  # enum ggml_log_level: INFO 2, WARN 3, ERROR 4, CONT 5
VOCAB_NONE: Final = 0  # LLAMA_VOCAB_TYPE_NONE

LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)


class ModelParams(ctypes.Structure):
    """struct llama_model_params."""

    _fields_ = [
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("lazy_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    ]


class ContextParams(ctypes.Structure):
    """struct llama_context_params."""

    _fields_ = [
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        (
            "abort_callback",
            c_void_p * 3,
        ),  # the callback, its data and a field this build adds: null, never set
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    ]


class Batch(ctypes.Structure):
    """struct llama_batch; a null ``pos`` continues the sequence, null ``seq_id`` is sequence 0."""

    _fields_ = [
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", c_void_p),
        ("pos", c_void_p),
        ("n_seq_id", c_void_p),
        ("seq_id", c_void_p),
        ("logits", POINTER(c_int8)),
    ]


_MODEL_DEFAULTS: Final[dict[str, Any]] = {
    "n_gpu_layers": -1,
    "split_mode": 1,
    "load_mode": -1,
    "lazy_mode": 1,
    "main_gpu": 0,
    "kv_overrides": None,
    "vocab_only": False,
    "check_tensors": False,
    "use_extra_bufts": True,
    "no_host": False,
    "no_alloc": False,
    "load_mtp": False,
}
_CONTEXT_DEFAULTS: Final[dict[str, Any]] = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "n_threads": 4,
    "n_threads_batch": 4,
    "ctx_type": 0,
    "rope_scaling_type": -1,
    "pooling_type": -1,
    "attention_type": -1,
    "flash_attn_type": -1,
    "rope_freq_base": 0.0,
    "yarn_beta_slow": -1.0,
    "yarn_orig_ctx": 0,
    "defrag_thold": -1.0,
    "type_k": 1,
    "type_v": 1,
    "embeddings": False,
    "offload_kqv": True,
    "no_perf": True,
    "op_offload": True,
    "swa_full": True,
    "kv_unified": False,
    "samplers": None,
    "n_samplers": 0,
    "ctx_other": None,
}

# name: (result, arguments), in llama.h's order.
_FUNCTIONS: Final[dict[str, tuple[Any, list[Any]]]] = {
    "llama_model_default_params": (ModelParams, []),
    "llama_context_default_params": (ContextParams, []),
    "llama_backend_init": (None, []),
    "llama_model_load_from_file": (c_void_p, [c_char_p, ModelParams]),
    "llama_model_free": (None, [c_void_p]),
    "llama_init_from_model": (c_void_p, [c_void_p, ContextParams]),
    "llama_free": (None, [c_void_p]),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_model_get_vocab": (c_void_p, [c_void_p]),
    "llama_vocab_type": (c_int32, [c_void_p]),
    "llama_vocab_n_tokens": (c_int32, [c_void_p]),
    "llama_adapter_lora_init": (c_void_p, [c_void_p, c_char_p]),
    "llama_adapter_lora_free": (None, [c_void_p]),
    "llama_adapter_get_alora_n_invocation_tokens": (c_uint64, [c_void_p]),
    "llama_adapter_get_alora_invocation_tokens": (POINTER(c_int32), [c_void_p]),
    "llama_set_adapters_lora": (c_int32, [c_void_p, POINTER(c_void_p), c_size_t, POINTER(c_float)]),
    "llama_memory_clear": (None, [c_void_p, c_bool]),
    "llama_decode": (c_int32, [c_void_p, Batch]),
    "llama_get_logits": (POINTER(c_float), [c_void_p]),
    "llama_vocab_is_eog": (c_bool, [c_void_p, c_int32]),
    "llama_tokenize": (c_int32, [c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool]),
    "llama_detokenize": (
        c_int32,
        [c_void_p, POINTER(c_int32), c_int32, c_char_p, c_int32, c_bool, c_bool],
    ),
    "llama_log_set": (None, [LogCallback, c_void_p]),
}


def find_library() -> Path:
    """The extension module of the installed xllamacpp, of the pinned version, found without importing it."""
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or not spec.submodule_search_locations:
        raise ConverterError(f"llama.cpp is not installed; {how_to_install('verify')}")
    _refuse_other_builds(importlib.metadata.version("xllamacpp"))
    folder = Path(spec.submodule_search_locations[0])
    found = sorted(path for path in folder.iterdir() if path.suffix in {".so", ".pyd", ".dylib"})
    if not found:
        raise ConverterError(f"{folder}: holds no llama.cpp library; {how_to_install('verify')}")
    return found[0]


def _refuse_other_builds(version: str) -> None:
    if version != XLLAMACPP_VERSION:
        raise ConverterError(
            f"xllamacpp {version} is installed, wanted {XLLAMACPP_VERSION} (structs differ between builds): "
            f"pip install 'xllamacpp=={XLLAMACPP_VERSION}'"
        )


def load_library() -> ctypes.CDLL:
    """llama.cpp with every function above declared; refused where its structs are not the ones above."""
    path = find_library()
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise ConverterError(f"{path}: llama.cpp's C API can't be used: {error}") from error
    _check_defaults(path, library.llama_model_default_params(), _MODEL_DEFAULTS)
    _check_defaults(path, library.llama_context_default_params(), _CONTEXT_DEFAULTS)
    return library


def _check_defaults(path: Path, params: ctypes.Structure, wanted: dict[str, Any]) -> None:
    found = {name: getattr(params, name) for name in wanted}
    if found != wanted:
        names = ", ".join(f"{n} is {found[n]}, wanted {wanted[n]}" for n in wanted if found[n] != wanted[n])
        raise ConverterError(
            f"{path}: {type(params).__name__} is not laid out as in xllamacpp {XLLAMACPP_VERSION} ({names}); "
            f"pip install --force-reinstall 'xllamacpp=={XLLAMACPP_VERSION}'"
        )
