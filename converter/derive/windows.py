"""The sliding window that llama.cpp's graph of an architecture leaves out."""

from collections.abc import Mapping

from converter.architectures import Architecture
from converter.derive.base_model import BaseModel


def ignored_window(base: BaseModel) -> int | None:
    """The sliding window that the base was trained with and the graph hasn't; None where it makes no difference."""
    architecture, config = base.architecture, base.config
    if architecture is None or not architecture.graph.ignores_window or config.get("use_sliding_window") is False:
        return None
    window = config.get("sliding_window")
    return window if isinstance(window, int) and 0 < window < _context(architecture, config) else None


def _context(architecture: Architecture, config: Mapping[str, object]) -> int:
    length = architecture.setting(config, architecture.metadata.required["context_length"])
    return length if isinstance(length, int) else 0
