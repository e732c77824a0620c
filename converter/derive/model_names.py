"""What the name of a model states, as far as names can be trusted: size, family, and whether it was instructed."""

import re
from pathlib import Path
from typing import Final

from converter.read.files import real

# A repository's, org/name.
HUB_NAME: Final = r"\w[\w.-]*/\w[\w.-]*"
COMMIT: Final = r"[0-9a-f]{40}"
_SNAPSHOT: Final = r"(?:^|/)models--([\w.-]+)/snapshots/([0-9a-f]{40})/?$"
_SIZE: Final = r"(?i)(?<![\w.])(\d+(?:\.\d+)?)([mb])(?![\w.])"
# A family's name, and the version behind it unless that is a size (2b, 270m). Derived families have names of their own.
_FAMILY: Final = (
    r"(?i)(?<![a-z])((?:code|tiny|pali|med|shield|embedding|function|open|vault)?"
    r"(?:gemma|llama|qwen|smollm|phi|mistral|mixtral|gpt|olmo|falcon|granite))"
    r"(?:[-_ ]?v?(\d{1,2}(?:\.\d)?)(?![\d.]*[bmkx]))?"
)
_INSTRUCTED: Final = r"(?i)(?<![a-z])(instruct|it|chat)(?![a-z])"
# What quantisers of PyTorch's put behind a model's name: -bnb-4bit, -unsloth-bnb-4bit, -GPTQ-Int4, -AWQ, -FP8-Dynamic.
_QUANTISED: Final = (
    r"(?i)[-_.](?:(?:unsloth[-_])?bnb[-_]?[48]bit|(?:gptq|awq|fp8|hqq|eetq|aqlm|w[48]a(?:8|16))(?:[-_.]\w+)*|[48]bit)$"
)
# The first generations that have no number.
_UNNUMBERED: Final = {"gemma": "1", "smollm": "1"}


def last_part(name: str) -> str:
    """The model's own name in a repository's or a path."""
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1]


def millions(name: str) -> float | None:
    """The one size in a name such as google/gemma-2b, in millions of parameters."""
    sizes = {
        float(number) * (1000 if unit in "bB" else 1)
        for number, unit in re.findall(_SIZE, last_part(name).replace("_", "-"))
    }
    return sizes.pop() if len(sizes) == 1 else None


def family(name: str) -> tuple[str, str] | None:
    """Family and version in a name such as google/gemma-2-2b: (gemma, 2); None unless it names one family.

    A version that isn't stated is empty.
    """
    found = {(word.lower(), version) for word, version in re.findall(_FAMILY, last_part(name))}
    if len(found) != 1:
        return None
    word, version = found.pop()
    return word, version or _UNNUMBERED.get(word, "")


def is_instructed(name: str) -> bool:
    """Whether a name says that the model was instructed."""
    return re.search(_INSTRUCTED, last_part(name)) is not None


def original_name(name: str) -> str | None:
    """What the model was called before a quantiser put its mark behind the name; None where there is none."""
    original = re.sub(_QUANTISED, "", last_part(name))
    return original if original and original != last_part(name) else None


def cached_repository(path: Path) -> str | None:
    """The repository of a path in the hub's cache: ``models--google--gemma-2b`` is google/gemma-2b."""
    names = (part.removeprefix("models--") for part in path.absolute().parts if part.startswith("models--"))
    return next((name.replace("--", "/", 1) for name in names), None)


def cached_snapshot(name: str) -> tuple[str, str] | None:
    """Repository and commit, where a name is the path of a snapshot in a hub's cache, here or elsewhere."""
    found = re.search(_SNAPSHOT, name.replace("\\", "/"))
    return (found[1].replace("--", "/", 1), found[2]) if found else None


def without_cache(name: str) -> str:
    """The repository, where a name is the path of a snapshot in a hub's cache; else the name itself."""
    snapshot = cached_snapshot(name)
    return snapshot[0] if snapshot else name


def public_name(path: Path) -> str:
    """What a directory or file is called: its own name; that of the repository, where its own is a commit's."""
    name = path.name or real(path).name
    return (re.fullmatch(COMMIT, name) and cached_repository(path)) or name
