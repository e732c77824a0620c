"""Text of files, names and paths, made safe to print: for terminals, and for the logs of CI runs.

What a terminal acts on (control characters, among them new lines and escapes) and what turns the direction of a line
(bidirectional controls, https://trojansource.codes) is escaped. GitHub's runner takes a line that begins with ``::``
and any line with ``##[`` for a command of the workflow (actions/runner, ActionCommand.cs), Azure's one with ``##vso[``;
TeamCity takes ``##teamcity[``: none of them is left whole, wherever a line may later be broken.
"""

import json
import re
from typing import Final

# The marks of commands, which JSON writes between quotes only.
_MARKS: Final = {"::": ":\\u003a", "##": "#\\u0023"}
_COMMANDS: Final = re.compile(r"::(?=[a-z])|##(?=\[|vso\[|teamcity\[)", re.IGNORECASE)


def printable(text: str) -> str:
    """The text on one line, with everything escaped that a terminal or a CI log would act on instead of show."""
    shown = text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return _COMMANDS.sub(lambda command: f"{command[0][0]}\\{command[0][1]}", shown)


def json_line(data: object) -> str:
    """Data as one line of JSON that no CI log takes for a command; whoever parses it gets the data as it was."""
    text = json.dumps(data)
    for mark, escaped in _MARKS.items():
        text = text.replace(mark, escaped)
    return text
