"""Reads adapters and bases: headers and JSON only, never tensor bytes. Lenient: what is wrong is kept for the rules."""
