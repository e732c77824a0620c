"""docs/json.md, from the schemas that lie beside it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

_DOCS: Final = Path(__file__).parent.parent / "docs"
PAGE: Final = _DOCS / "json.md"
# In the order of the page; policy.schema.json is of a file that people write.
_SCHEMAS: Final = {
    "ended": "An early end",
    "report": "adapter-check",
    "conversion": "adapter-to-gguf",
    "verification": "adapter-verify",
    "training": "adapter-train",
    "fleet": "adapter-fleet",
}
_HEAD: Final = """# JSON

With `--format json` each of these commands prints one line on stdout, whatever its [exit status](exit-statuses.md).
Text for people goes to stderr. The first fields are the same for all:

| field | holds |
|---|---|
| `version` | 1; it changes only with a change that breaks readers. Fields may be added without one |
| `tool`, `tool_version` | the command, and the version of adapter-to-gguf |
| `status` | the exit status (with `adapter-check --exit-zero`: what it would be without) |
| `error` | `null`; or, where the command ended early, `message` and `remedy` |

```python
import json, subprocess

ran = subprocess.run(["adapter-to-gguf", "A", "--base", "B", "--format", "json"], capture_output=True, text=True)
said = json.loads(ran.stdout)
if said["error"]:
    print(said["error"]["message"])
    for finding in said.get("judgement", {}).get("findings", []):  # a refusal: status 1
        print(finding["code"], finding["where"], finding["message"], finding["remedy"], finding["help_uri"])
```

Only a process that is killed (SIGTERM, `kill -9`) prints none.

What follows is generated from the schemas beside this page: `UPDATE_GOLDEN=1 pytest tests/golden` writes it.
"""


def page() -> str:
    """The page of every schema, a table of its fields each."""
    return _HEAD + "".join(_section(name, title) for name, title in _SCHEMAS.items())


def _schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((_DOCS / f"{name}.schema.json").read_text(encoding="utf-8"))
    return schema


def _section(name: str, title: str) -> str:
    schema = _schema(name)
    rows = "\n".join(f"| `{field}` | {type_} | {text} |" for field, type_, text in _Rows(schema).of(schema, ""))
    return (
        f"\n## {title}\n\n{schema['description']} The schema is [{name}.schema.json]({name}.schema.json).\n\n"
        f"| field | type | holds |\n|---|---|---|\n{rows}\n"
    )


class _Rows:
    """The fields of a schema, each by its path. What is defined once is told once."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._told: set[str] = set()

    def of(self, schema: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
        """Path, type and meaning of a schema's fields, and of theirs."""
        for name, value in schema.get("properties", {}).items():
            field = self._resolved(value)
            text = value.get("description") or field.get("description", "")
            yield f"{prefix}{name}", _type(value, field), text.replace("|", "\\|")
            yield from self._below(value, f"{prefix}{name}.")
            yield from self._below(field.get("items", {}), f"{prefix}{name}[].")

    def _below(self, value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
        reference = value.get("$ref", "")
        if not reference.startswith("report.schema.json") and reference not in self._told:
            self._told |= {reference} - {""}
            yield from self.of(self._resolved(value), prefix)

    def _resolved(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        file, _, pointer = value.get("$ref", "").partition("#/$defs/")
        if not pointer:
            return value
        of: Mapping[str, Any] = (_schema("report") if file else self._root)["$defs"][pointer]
        return of


def _type(value: Mapping[str, Any], field: Mapping[str, Any]) -> str:
    if value.get("$ref", "").endswith("#/$defs/report"):
        return "as one of [`adapters`](#adapter-check)"
    if "const" in field:
        return json.dumps(field["const"])
    if "enum" in field:
        return " or ".join(json.dumps(choice) for choice in field["enum"])
    types = field.get("type", "object")
    return types if isinstance(types, str) else " or ".join(types)
