"""Judgements and plans as text and data: one module per format, Report in, text out."""
