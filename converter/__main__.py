"""``python -m converter check PATH``: the commands, where their scripts are not on the path."""

import sys
from importlib import import_module
from typing import Final

from converter.errors import COULD_NOT

COMMANDS: Final = {"check": "check", "to-gguf": "to_gguf", "verify": "verify", "train": "train", "fleet": "fleet"}


def main() -> None:
    """Run the command that the first argument names."""
    name, *arguments = sys.argv[1:] or [""]
    if name not in COMMANDS:
        sys.stderr.write(f"python -m converter: {name!r} is no command; there are {', '.join(COMMANDS)}\n")
        sys.exit(COULD_NOT)
    import_module(f"converter.cli.{COMMANDS[name]}").main(arguments, prog_name=f"python -m converter {name}")


if __name__ == "__main__":
    main()
