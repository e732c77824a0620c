"""An adapter's config as PEFT reads it, without what PEFT would import by its name.

dispatch_megatron in peft/tuners/lora/tp_layer.py imports megatron_core where there is a megatron_config; AutoPeftModel
in peft/auto.py, which nothing here uses, imports auto_mapping's parent_library.
"""

from pathlib import Path
from typing import Any, Final

from peft import PeftConfig

# The field, and what it is in an adapter that names no code.
_NAMES_CODE: Final = {"auto_mapping": None, "megatron_config": None, "megatron_core": "megatron.core"}


def read_peft_config(adapter: Path) -> Any:
    """The config of the adapter in this directory; of which class decides its peft_type."""
    config: Any = PeftConfig.from_pretrained(str(adapter), local_files_only=True)
    for field, harmless in _NAMES_CODE.items():
        if hasattr(config, field):
            setattr(config, field, harmless)
    return config
