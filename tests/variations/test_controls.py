"""Controls: each fold that makes a variation exact is left out of the plan once, and both proofs must find it out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from converter.conversion import plan, write
from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.diagnostics import Deployment, Kind
from converter.orders import IDENTITY
from converter.planning.conversion_plan import ConversionPlan, PlannedTensor
from converter.sources import CopiedBytes, Delta, Merged, Stacked, StoredRows, Zeros
from converter.verification.llama_cpp import LlamaCpp
from fixtures.variations import VARIATIONS
from tests.variations.cells import LARGEST_RATIO, Saved, deployed, ratio, tensor_proof

DEPLOYMENTS: Mapping[Kind, Deployment] = {
    "lora": Deployment("lora"),
    "model": Deployment("model"),
    "untie-model": Deployment("model", untie=True),
}
Spoil = Callable[[PlannedTensor, BaseModel], PlannedTensor]


def half_the_scale(tensor: PlannedTensor, _base: BaseModel) -> PlannedTensor:
    source = tensor.source
    if not isinstance(source, Merged):
        return tensor
    halved = tuple(delta._replace(scaling=delta.scaling / 2) for delta in source.deltas)
    return tensor._replace(source=source._replace(deltas=halved))


def without_the_order_of_rows(tensor: PlannedTensor, _base: BaseModel) -> PlannedTensor:
    match tensor.source:
        case Merged(_, (Delta(left=StoredRows() as left) as delta,)) as source:
            unordered = delta._replace(left=left._replace(order=IDENTITY))
            return tensor._replace(source=source._replace(deltas=(unordered,)))
        case _:
            return tensor


def with_gate_and_up_swapped(tensor: PlannedTensor, _base: BaseModel) -> PlannedTensor:
    for one, other in (("ffn_up", "ffn_gate"), ("ffn_gate", "ffn_up")):
        if one in tensor.name:
            return tensor._replace(name=tensor.name.replace(one, other))
    return tensor


def without_the_delta_of(name: str) -> Spoil:
    def spoil(tensor: PlannedTensor, _base: BaseModel) -> PlannedTensor:
        source = tensor.source
        return tensor._replace(source=source.base) if tensor.name == name and isinstance(source, Merged) else tensor

    return spoil


def without_magnitudes(tensor: PlannedTensor, _base: BaseModel) -> PlannedTensor:
    source = tensor.source
    return tensor._replace(source=source._replace(magnitude=None)) if isinstance(source, Merged) else tensor


def without_lora_bias(tensor: PlannedTensor, _base: BaseModel) -> PlannedTensor:
    source = tensor.source
    if not isinstance(source, Merged):
        return tensor
    return tensor._replace(source=source._replace(deltas=tuple(delta for delta in source.deltas if delta.right)))


def without_the_initial_adapter(tensor: PlannedTensor, _base: BaseModel) -> PlannedTensor:
    source = tensor.source
    return tensor._replace(source=source._replace(deltas=source.deltas[:1])) if isinstance(source, Merged) else tensor


def one_token_row_elsewhere(tensor: PlannedTensor, _base: BaseModel) -> PlannedTensor:
    source = tensor.source
    if not isinstance(source, Merged) or not source.replaced:
        return tensor
    (rows,) = source.replaced
    moved = rows._replace(indices=(*rows.indices[:-1], rows.indices[-1] - 1))
    return tensor._replace(source=source._replace(replaced=(moved,)))


def without_one_expert(tensor: PlannedTensor, _base: BaseModel) -> PlannedTensor:
    match tensor.source:
        case Stacked((Merged() as first, *others)):
            return tensor._replace(source=Stacked((first.base, *others)))
        case Stacked((StoredRows() as first, *others)) if tensor.name.endswith("lora_b"):
            return tensor._replace(source=Stacked((Zeros(tensor.shape[1:]), *others)))
        case _:
            return tensor


def as_the_base_has_it(part: str) -> Spoil:
    """Serve the base's own tensor in the place of what was saved."""

    def spoil(tensor: PlannedTensor, base: BaseModel) -> PlannedTensor:
        if part not in tensor.name:
            return tensor
        stored = base.tensors[_module_of(tensor.name, base)]
        return tensor._replace(source=CopiedBytes(tensor.name, stored))

    return spoil


def _module_of(name: str, base: BaseModel) -> str:
    stem, _, parameter = name.rpartition(".")
    (target,) = (base.architecture.source(stem),) if base.architecture else (None,)
    return f"{target.module}.{parameter}" if target else name


@dataclass(frozen=True, slots=True)
class Control:
    """What is left out of one cell: of its plan, tensor by tensor, or of its config's fields."""

    variation: str
    column: str
    kind: Kind
    spoil: Spoil | None = None
    fields: Mapping[str, Any] | None = None
    shows_in_logits: bool = True


CONTROLS: Mapping[str, Control] = {
    "half the scale": Control("plain", "llama", "model", half_the_scale),
    "the order of rows": Control("plain", "llama", "model", without_the_order_of_rows),
    "gate and up": Control("plain", "qwen3", "lora", with_gate_and_up_swapped),
    "the head": Control("LoRA on lm_head", "llama", "untie-model", without_the_delta_of("output.weight")),
    # What logits don't show is why there is a second proof.
    "one module": Control(
        "plain", "llama", "model", without_the_delta_of("blk.1.attn_k.weight"), shows_in_logits=False
    ),
    "rsLoRA's square root": Control("use_rslora", "llama", "lora", fields={"use_rslora": False}),
    "rsLoRA's square root, merged": Control("use_rslora", "qwen2", "model", fields={"use_rslora": False}),
    "alpha_pattern": Control("alpha_pattern", "gemma", "lora", fields={"alpha_pattern": {}}),
    "alpha_pattern, merged": Control("alpha_pattern", "gpt2", "model", fields={"alpha_pattern": {}}),
    "lora_alpha 0": Control("lora_alpha 0, others by alpha_pattern", "qwen3", "lora", fields={"lora_alpha": 8.0}),
    "the experts' alpha_pattern": Control(
        "fused experts with rank and alpha patterns", "qwen3moe", "model", fields={"alpha_pattern": {}}
    ),
    "DoRA's magnitudes": Control("use_dora", "llama", "model", without_magnitudes),
    "DoRA's magnitudes of rows in rope order": Control(
        "use_dora with use_rslora", "llama", "model", without_magnitudes
    ),
    "lora_bias": Control("lora_bias on all", "llama", "model", without_lora_bias),
    "one token row": Control("trainable_token_indices: a list", "qwen3", "model", one_token_row_elsewhere),
    "a saved norm": Control("modules_to_save: norms", "gemma3", "model", as_the_base_has_it("blk.1.attn_norm")),
    "a saved linear": Control("modules_to_save: a linear", "phi3", "model", as_the_base_has_it("blk.1.ffn_down")),
    "the biases": Control("bias: all", "qwen2", "model", as_the_base_has_it(".bias")),
    "one expert": Control("fused experts, both parameters", "qwen3moe", "model", without_one_expert),
    "one expert of a LoRA": Control("fused experts, both parameters", "qwen3moe", "lora", without_one_expert),
    "the map of layers": Control(
        "layer_replication, as many layers", "llama", "model", fields={"layer_replication": ((0, 2), (0, 1))}
    ),
    "the initial adapter": Control("pissa, with its initial adapter", "llama", "model", without_the_initial_adapter),
}


@pytest.mark.variations
@pytest.mark.llama
@pytest.mark.parametrize("name", CONTROLS)
def test_a_fold_left_out_is_found_out(name: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    control = CONTROLS[name]
    variation = next(variation for variation in VARIATIONS if variation.name == control.variation)
    saved = Saved(variation, control.column, tmp_path)
    output = tmp_path / "output"
    _write_spoilt(saved, control, output)
    files = deployed(saved, control.kind, output)
    assert tensor_proof(saved, files).faults
    if control.shows_in_logits:
        assert ratio(saved, files, llama_cpp) > 10 * LARGEST_RATIO


def _write_spoilt(saved: Saved, control: Control, output: Path) -> None:
    adapter, base = saved.read(), read_base_model(saved.truth.gguf)
    spoilt = _with_fields(adapter, control.fields or {})
    conversion = plan(spoilt, base, DEPLOYMENTS[control.kind])
    if control.spoil:
        conversion = _spoilt(conversion, control.spoil, base)
    write(conversion, output)


def _with_fields(adapter: Adapter, fields: Mapping[str, Any]) -> Adapter:
    assert adapter.config
    assert all(getattr(adapter.config, field) != value for field, value in fields.items())
    return replace(adapter, config=adapter.config._replace(**fields))


def _spoilt(conversion: ConversionPlan, spoil: Spoil, base: BaseModel) -> ConversionPlan:
    (file,) = conversion.files
    tensors = tuple(spoil(tensor, base) for tensor in file.tensors)
    assert tensors != file.tensors
    return replace(conversion, files=(file._replace(tensors=tensors),))
