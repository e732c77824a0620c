"""Which modules adapter_config.json promises a delta for, as the incompleteness rules ask about it.

PEFT's own matching: ``check_target_module_exists`` in peft/tuners/tuners_utils.py (PEFT 0.21.2).
"""

import re
from typing import Final, NamedTuple

from converter.derive.adapter import Adapter
from converter.derive.adapter_tensors import is_expert_parameter
from converter.derive.patterns import is_bounded
from converter.diagnostics import CannotLookError
from converter.read.adapter_config import AdapterConfig
from converter.read.limits import LAYERS

_LAYER: Final = re.compile(r"(?<=\.)(\d+)(?=\.)")  # the first number of a path; an expert's stands behind it
_QUANTIFIER: Final = re.compile(r"\{[\d,]+\}")


def layer_of(path: str) -> int | None:
    """The layer that a module's path lies in, as far as a model can have so many."""
    layer = _LAYER.search(path)
    return int(layer[1]) if layer and len(layer[1]) < len(str(LAYERS)) else None


def kind_of(path: str) -> str:
    """A module's path without the number of its layer."""
    return _LAYER.sub("{i}", path, count=1)


class Promise(NamedTuple):
    """What the config of ``adapter`` selects. A path is a module's as it was saved."""

    adapter: Adapter
    config: AdapterConfig

    def includes(self, path: str) -> bool:
        """Whether training gave this module a delta, if the model has it.

        Raises CannotLookError where only running an unbounded regex would tell.
        """
        excluded = self.config.exclude_modules
        if _fullmatch(excluded, path) if isinstance(excluded, str) else _ends(path, excluded or ()):
            return False
        if is_expert_parameter(path):
            return _ends(path, self.config.target_parameters)
        return self._is_targeted(path) or _ends(f"{path}.weight", self.config.target_parameters)

    def _is_targeted(self, path: str) -> bool:
        targets = self.config.target_modules
        if targets is None:
            return False
        if isinstance(targets, str):
            return self._is_matched(targets, path)
        return path in targets or (_ends(path, targets) and self._is_transformed(path))

    def _is_matched(self, pattern: str, path: str) -> bool:
        if is_bounded(pattern) or re.search(r"\d", _QUANTIFIER.sub("", pattern)):
            return _fullmatch(pattern, path)
        # Without a digit it tells no layer from another: what it selects in one, it selects in all.
        return kind_of(path) in {kind_of(tensor.path) for tensor in self.adapter.tensors}

    def _is_transformed(self, path: str) -> bool:
        layers = self.config.layers_to_transform
        if not layers:
            return True
        patterns = [re.escape(pattern) for pattern in self.config.layers_pattern] or [r"[^.]*"]
        matches = (re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", path) for pattern in patterns)
        return next((int(match[1]) in layers for match in matches if match), False)


def promise_of(adapter: Adapter) -> Promise | None:
    """The promise of a LoRA's config; None where it names nothing that can be looked up, or not all was read."""
    config = adapter.config
    if config is None or config.peft_type not in (None, "LORA") or adapter.faults or not adapter.pairs:
        return None
    return None if config.target_modules == "all-linear" else Promise(adapter, config)


def _ends(path: str, names: tuple[str, ...]) -> bool:
    return any(path == name or path.endswith(f".{name}") for name in names)


def _fullmatch(pattern: str, path: str) -> bool:
    if not is_bounded(pattern):
        raise CannotLookError("a pattern of adapter_config.json is no regex of bounded time")
    return re.fullmatch(pattern, path) is not None
