"""Which type llama.cpp gives each tensor of a file that it quantises: its mixtures, and what fits no whole blocks.

Facts of llama.cpp build 11549, src/llama-quant.cpp: which tensors are quantised at all (tensor_allows_quantization), a
file type's own type and how tensors part from it (llama_tensor_get_type), what takes the
place of a type that a row is no whole number of blocks of (tensor_type_fallback). What it says of Falcon, GLM-5 and
BailingMoE 3 is left out: no such base is converted here.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from converter.dtypes import F16, GGML_BY_NAME, GgmlType
from converter.planning.file_types import FILE_TYPES

# What a type of blocks of 256 becomes where a row has no whole number of them, but of 32.
_OF_SMALLER_BLOCKS: Final[Mapping[str, str]] = {
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
    "IQ3_XXS": "IQ4_NL",
    "IQ3_S": "IQ4_NL",
    "IQ4_XS": "IQ4_NL",
    "TQ1_0": "Q4_0",
    "TQ2_0": "Q4_0",
}

# --- The tensors ------------------------------------------------------------------------------------------------------

_NEVER: Final = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|altup|laurel|per_layer_model_proj|^position_embd\.weight|^token_types\.weight"
    r"|ssm_conv1d|shortconv\.conv\.weight|indexer\.[kq]_proj\.weight|time_mix_(first|w[012]|v[012]|a[012]|g[12]"
    r"|decay_w[12]|lerp_fused)\.weight|attn_rel_b\.weight|\.position_embd|\.rel_pos|\.patch_(embd|merger)"
)
_EMBEDDINGS: Final = frozenset({"token_embd.weight", "per_layer_token_embd.weight"})
_KINDS: Final = (
    ("attn_qkv.weight", "attn_v"),
    ("attn_kv_b.weight", "attn_v"),
    ("attn_v.weight", "attn_v"),
    ("attn_k.weight", "attn_k"),
    ("attn_q.weight", "attn_q"),
    ("attn_output.weight", "attn_output"),
    ("ffn_up", "ffn_up"),
    ("ffn_gate", "ffn_gate"),
    ("ffn_down", "ffn_down"),
)


class Matrix(NamedTuple):
    """A tensor by what its type follows from; ``shape`` is row-major."""

    name: str
    shape: tuple[int, ...]

    @property
    def is_quantised(self) -> bool:
        """Whether llama.cpp quantises it: a matrix of more than one row, and none that it keeps as it is."""
        n_matrices_and_rows = self.shape[:-1]
        return any(n > 1 for n in n_matrices_and_rows) and self.name.endswith("weight") and not _NEVER.search(self.name)

    @property
    def kind(self) -> str:
        """The part of the model that it is, as far as types depend on it."""
        if self.name == "output.weight":
            return "output"
        if self.name in _EMBEDDINGS:
            return "token_embd"
        return next((kind for part, kind in _KINDS if part in self.name), "")

    @property
    def layer(self) -> int:
        """The layer's number, -1 outside of the layers."""
        found = re.match(r"blk\.(\d+)\.", self.name)
        return int(found[1]) if found else -1


class Traits(NamedTuple):
    """What a mixture asks of the model."""

    architecture: str
    n_layer: int
    n_head: int
    n_head_kv: int
    n_expert: int

    @property
    def heads_per_kv(self) -> int:
        """Query heads for each key head."""
        return self.n_head // self.n_head_kv if self.n_head_kv else 0

    @property
    def is_70b(self) -> bool:
        """Whether llama.cpp takes it for a model of 70B, by its depth alone: src/models/{llama,qwen2,olmo}.cpp."""
        if self.n_layer != 80:
            return False
        is_llama = self.architecture == "llama" and self.n_expert != 8 and self.n_head != self.n_head_kv
        return is_llama or self.architecture in {"qwen2", "olmo"}


class Wanted(NamedTuple):
    """What was asked for: a file type, and types (GGML's names) that are others than its own.

    ``tensors`` are patterns and the types of those tensors that one is found in, the first that is.
    """

    file_type: str
    tensors: tuple[tuple[str, str], ...] = ()
    output: str | None = None
    embedding: str | None = None
    has_imatrix: bool = False


# --- The choice -------------------------------------------------------------------------------------------------------


def types_of(matrices: Iterable[Matrix], traits: Traits, wanted: Wanted) -> dict[str, GgmlType]:
    """The type of each tensor that is quantised, by name. A name that is missing keeps its type.

    A type that was asked for by name for output or embedding is taken as it is, whether or not a row fits it.
    """
    ordered = sorted(matrices, key=lambda matrix: (matrix.layer, matrix.name.encode()))
    choice = _Choice(ordered, traits, wanted)
    return {matrix.name: choice.type_of(matrix) for matrix in ordered if matrix.is_quantised}


class _Choice:
    """The types of one file, asked for in llama.cpp's order: some follow from how many of a kind came before."""

    def __init__(self, matrices: list[Matrix], traits: Traits, wanted: Wanted) -> None:
        self._traits = traits
        self._wanted = wanted
        self._own = FILE_TYPES[wanted.file_type].type
        self._is_tied = all(matrix.kind != "output" for matrix in matrices)
        self._n_attn_v = sum(matrix.kind == "attn_v" for matrix in matrices)
        self._seen = Counter[str]()
        self._patterns = [(re.compile(pattern), GGML_BY_NAME[name]) for pattern, name in wanted.tensors]

    def type_of(self, matrix: Matrix) -> GgmlType:
        named = next((to for pattern, to in self._patterns if pattern.search(matrix.name)), None)
        is_ple = matrix.name == "per_layer_token_embd.weight"
        if self._wanted.embedding and matrix.kind == "token_embd" and not (is_ple and named):
            return GGML_BY_NAME[self._wanted.embedding]
        if self._wanted.output and matrix.kind == "output":
            return GGML_BY_NAME[self._wanted.output]
        return fitting(named or self._of_mixture(matrix), matrix.shape[-1])

    def _of_mixture(self, matrix: Matrix) -> GgmlType:
        if matrix.kind == "output" or (self._is_tied and matrix.kind == "token_embd"):
            return self._of_head(matrix)
        if self._wanted.file_type == "MXFP4_MOE":
            return self._own if len(matrix.shape) > 2 and matrix.shape[0] > 1 else GGML_BY_NAME["Q8_0"]
        name = self._of_kind(matrix)
        self._seen[matrix.kind] += 1
        return GGML_BY_NAME[name] if name else self._own

    def _of_kind(self, matrix: Matrix) -> str | None:
        match matrix.kind:
            case "attn_v":
                return self._of_attn_v()
            case "attn_k":
                return "Q8_0" if self._traits.n_expert == 8 else None
            case "attn_output":
                return self._of_attn_output()
            case "ffn_down":
                return self._of_ffn_down(matrix)
        return None

    def _of_head(self, matrix: Matrix) -> GgmlType:
        if self._wanted.output:
            return GGML_BY_NAME[self._wanted.output]
        is_8_bit = self._wanted.file_type in ("Q8_0", "MXFP4_MOE") or not self._own.fits(matrix.shape[-1])
        return GGML_BY_NAME["Q8_0" if is_8_bit else "Q6_K"]

    def _of_attn_v(self) -> str | None:
        if self._traits.n_expert == 8:
            return "Q8_0"
        at, name = self._seen["attn_v"], None
        match self._wanted.file_type:
            case "Q3_K_M":
                name = "Q5_K" if at < 2 else "Q4_K"
            case "IQ4_NL" | "IQ4_XS" if self._traits.heads_per_kv >= 4:
                name = "Q5_K"
            case "Q4_K_M" | "Q5_K_M" if _gets_more_bits(at, self._n_attn_v):
                name = "Q6_K"
            case "Q4_K_S" if at < 4:
                name = "Q5_K"
        return "Q5_K" if self._traits.is_70b and (name or self._own.name) in ("Q3_K", "Q4_K") else name

    def _of_ffn_down(self, matrix: Matrix) -> str | None:
        n = self._traits.n_layer
        at = matrix.layer if self._traits.n_expert > 1 else self._seen["ffn_down"]
        match self._wanted.file_type:
            case "Q3_K_M":
                return "Q5_K" if at < n // 16 else "Q4_K"
            case "Q4_K_M" | "Q5_K_M" if _gets_more_bits(at, n):
                return "Q6_K"
            case "Q4_K_S" if at < n // 8:
                return "Q5_K"
            case "IQ4_NL" | "IQ4_XS" if at < n // 8 and not self._wanted.has_imatrix:
                return "Q5_K"
        return None

    def _of_attn_output(self) -> str | None:
        file_type = self._wanted.file_type
        if self._traits.n_expert == 8:
            return "Q5_K" if file_type in {"Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ4_NL", "IQ4_XS"} else None
        return "Q4_K" if file_type == "Q3_K_M" else None


def _gets_more_bits(at: int, n: int) -> bool:
    return at < n // 8 or at >= 7 * n // 8 or (at - n // 8) % 3 == 2


def fitting(ggml_type: GgmlType, n_columns: int) -> GgmlType:
    """The type, or what llama.cpp takes instead where a row is no whole number of its blocks."""
    if ggml_type.fits(n_columns):
        return ggml_type
    smaller = GGML_BY_NAME[_OF_SMALLER_BLOCKS.get(ggml_type.name, ggml_type.name)]
    return smaller if smaller.fits(n_columns) else F16
