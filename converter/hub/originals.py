"""The original of a repository that holds a model in another form, as far as its name tells. Said, and never taken.

unsloth keeps originals beside what it makes of them, under one name; of others the account is not known.
"""

import re
from typing import Final

from converter.derive.model_names import original_name

_WITH_ORIGINALS: Final = ("unsloth",)
_GGUF: Final = r"(?i)[-_.](?:i1[-_.])?GGUF$"


def original_repository(repository: str) -> str | None:
    """What ``ORG/NAME-bnb-4bit``, ``-GGUF``, ``-AWQ``, ``-GPTQ-Int4`` or ``-FP8`` was made from; None of another name.

    With an account where that has the original too, else the bare name.
    """
    account, _, name = repository.rpartition("/")
    plain = re.sub(_GGUF, "", name)
    original = original_name(plain) or (plain if plain != name else None)
    return f"{account}/{original}" if original and account in _WITH_ORIGINALS else original
