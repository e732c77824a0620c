"""For every test: no model hub."""

import os

# Before transformers or PEFT are imported: a test that reaches for the hub is wrong, not slow.
os.environ["HF_HUB_OFFLINE"] = "1"
