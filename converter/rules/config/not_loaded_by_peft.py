"""PEFT can't load the adapter, has no place for one of its tensors, or finds a tensor missing.

Why it matters: PEFT only warns of a tensor it has no place for, and leaves the missing one as an untrained adapter has
it. What is served is then a part of what was trained.

What to do: save the adapter again with PEFT's save_pretrained, and convert it with a PEFT as new as the one that saved
it (peft_version in adapter_config.json).
"""

from converter.diagnostics import Rule, Severity, WhileWriting

RULE = Rule("CF011", "not-loaded-by-peft", Severity.ERROR, WhileWriting(__name__))
