"""Turns a ConversionPlan into GGUF files, block by block. Outputs appear whole or not at all."""
