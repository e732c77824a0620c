"""The file of an MLX adapter holds a delta of a layer that its num_layers leaves out, so mlx_lm doesn't load it.

Why it matters: mlx_lm gives a LoRA to the last num_layers layers, and ends with an error at tensors of others. Either
the file or the config is of another run, or the base has another number of layers than the one that was trained.

What to do: give the base that the adapter was trained on, and the adapter_config.json that was saved with the file.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import BaseCheck, Problem, Rule, Severity
from converter.rules.promised import layer_of


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each module of a layer before the first that mlx_lm trains."""
    if adapter.config is None or adapter.config.mlx is None or base.architecture is None:
        return
    from converter.read.mlx_config import first_layer

    first = first_layer(adapter.config.mlx, base.dims["n_layer"])
    for module in adapter.modules:
        layer = layer_of(module)
        if layer is not None and layer < first:
            yield Problem(module, f"lies before layer {first}, the first that num_layers names in {base.label}")


RULE = Rule("CF017", "layer-without-mlx-delta", Severity.ERROR, BaseCheck(check))
