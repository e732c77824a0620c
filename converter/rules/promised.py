"""Which modules adapter_config.json promises a delta for, as the incompleteness rules ask about it.

PEFT's own matching is in derive/patterns.py.
"""

import re
from typing import Final, NamedTuple

from converter.derive.adapter import Adapter
from converter.derive.adapter_tensors import is_expert_parameter
from converter.derive.patterns import Patterns
from converter.derive.remembered import remembered
from converter.diagnostics import CannotLookError
from converter.read.adapter_config import AdapterConfig
from converter.read.limits import LAYERS

_LAYER: Final = re.compile(r"(?<=\.)(\d+)(?=\.)")  # the first number of a path; an expert's stands behind it
_ROUTER: Final = ".mlp.gate"


@remembered
def layer_of(path: str) -> int | None:
    """The layer that a module's path lies in, as far as a model can have so many."""
    layer = _LAYER.search(path)
    return int(layer[1]) if layer and len(layer[1]) < len(str(LAYERS)) else None


@remembered
def across_layers(path: str) -> str:
    """A module's path without the number of its layer."""
    return _LAYER.sub("{i}", path, count=1)


class Promise(NamedTuple):
    """What the config of ``adapter`` selects. A path is a module's as it was saved."""

    adapter: Adapter
    config: AdapterConfig
    patterns: Patterns

    def includes(self, path: str) -> bool:
        """Whether training gave this module a delta, if the model has it.

        Raises CannotLookError where a pattern that would tell is not read, or no module is named.
        """
        # A router is no nn.Linear in transformers 5, and was one in 4.
        return self._selects(path) and not (self.patterns.names_all_linear and path.endswith(_ROUTER))

    def loads(self, path: str) -> bool:
        """Whether PEFT loads a delta of this module. Raises CannotLookError as ``includes`` does."""
        return self.patterns.ties(path) or self._selects(path)

    def _selects(self, path: str) -> bool:
        parameters = self.config.target_parameters
        is_expert = is_expert_parameter(path)
        is_parameter = is_expert or path.endswith(".weight")
        if parameters and _ends(path if is_parameter else f"{path}.weight", parameters):
            return True
        if is_expert:  # no module, so target_modules that name an expert's of its own don't mean it
            return False
        selected = self.patterns.selects(path)
        if selected is None:
            raise CannotLookError("adapter_config.json doesn't tell which modules have a delta (target_modules)")
        return selected


def promise_of(adapter: Adapter) -> Promise | None:
    """The promise of a LoRA's config; None where not all of it was read."""
    is_lora = adapter.config is not None and adapter.config.is_lora
    return promise_of_any(adapter) if is_lora and adapter.pairs else None


def promise_of_any(adapter: Adapter) -> Promise | None:
    """The promise of a config of whatever method; None where not all was read."""
    config = adapter.config
    if config is None or config.malformed or adapter.faults or not adapter.tensors:
        return None
    return Promise(adapter, config, Patterns(config))


def _ends(path: str, names: tuple[str, ...]) -> bool:
    return any(path == name or path.endswith(f".{name}") for name in names)
