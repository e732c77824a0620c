"""Adapters and bases on a hub or in a bucket: what is needed is fetched, no more. The one door to a network."""

from converter.hub.adapters import read_adapter_on_hub, read_adapters_on_hub
from converter.hub.bases import read_base_on_hub
from converter.hub.downloads import download_adapter, download_base

__all__ = ["download_adapter", "download_base", "read_adapter_on_hub", "read_adapters_on_hub", "read_base_on_hub"]
