"""Servers as data: what each of them makes of each feature of an adapter. One TOML each, read when it is asked for."""
