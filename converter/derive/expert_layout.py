"""How an adapter's factors of fused experts lie, which depends on the PEFT that saved them.

A parameter of experts is (experts, out, in) in transformers. Up to 0.19.0 PEFT took it for (experts, in, out): lora_A
has the out side and lora_B the in side, and the delta is the transpose of what the same factors give since 0.19.1
(``ParamWrapper`` in peft/tuners/lora/layer.py, 0.17.0 to 0.21.2).
"""

import re
from typing import Final

from converter.read.adapter_config import AdapterConfig

_VERSION: Final = r"(\d+)\.(\d+)\.(\d+)(.*)"
_TURNED_IN: Final = (0, 19, 1)


def is_todays_layout(config: AdapterConfig) -> bool | None:
    """Whether the factors of experts lie as PEFT has them since 0.19.1; None where its version isn't stated.

    PEFT states it since 0.18. Development versions of 0.19.1 are of either side.
    """
    stated = config.raw.get("peft_version")
    version = re.match(_VERSION, stated) if isinstance(stated, str) else None
    if version is None:
        return None
    release = (int(version[1]), int(version[2]), int(version[3]))
    if release == _TURNED_IN and version[4].startswith((".dev", "rc")):
        return None
    return release >= _TURNED_IN
