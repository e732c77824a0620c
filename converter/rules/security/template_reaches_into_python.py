"""The chat template beside the adapter reaches for Python's internals.

Why it matters: a chat template is a program in Jinja. One that asks for __class__, __globals__ or __subclasses__ runs
any code in a server that renders it outside of Jinja's sandbox (CVE-2024-34359 of llama-cpp-python). No template of a
model needs them. It was not rendered here.

What to do: don't serve it. Take the base's own template, and ask where this one comes from.
"""

import re
from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.diagnostics import DirectoryCheck, Problem, Rule, Severity
from converter.read.tokenizer import chat_templates

# Attributes with two underscores, also spelled with escapes; and the filter that takes an attribute's name as text.
_INTERNALS: Final = re.compile(
    r"__\w+__|\\x5f|\\u005f|\\137|\|\s*attr\b|\bmap\s*\(\s*attribute\s*=\s*['\"]_", re.IGNORECASE
)


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each template with what it asks for."""
    for name, template in chat_templates(adapter.path):
        found = sorted({match[0] for match in _INTERNALS.finditer(template)})
        if found:
            yield Problem(name, f"asks for {', '.join(found[:3])}")


RULE = Rule("SC007", "template-reaches-into-python", Severity.ERROR, DirectoryCheck(check))
