"""The version of this tool, which outputs record, and where its pages are."""

__version__ = "0.1.0"  # hatchling reads this line, and takes no annotation
REPOSITORY = "https://github.com/adapter-to-gguf/adapter-to-gguf"


def page(path: str) -> str:
    """The address of a file of this repository, such as docs/rules.md#hd001."""
    return f"{REPOSITORY}/blob/main/{path}"
