"""Adapters on a model hub: what the rules read of them is fetched, and nothing else. The one door to a network."""

from converter.hub.adapters import read_adapter_on_hub, read_adapters_on_hub

__all__ = ["read_adapter_on_hub", "read_adapters_on_hub"]
