"""What happens between "the LoRA is trained" and "it is served": check, convert and prove PEFT adapters.

Nothing is imported here, so that ``adapter-check`` starts without numpy and torch.
"""

__version__ = "0.1.0"
