"""Training with PEFT: the only writer of adapters."""
