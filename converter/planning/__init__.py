"""Decides everything about a conversion before the first byte is written. Plain data, no numpy."""
