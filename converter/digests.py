"""SHA-256 of what a conversion reads, so that an output says what it was made from without naming a path."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.errors import ConverterError
from converter.read.files import could_not_read, is_file, open_regular
from converter.read.limits import FILES


def adapter_digest(adapter: Adapter) -> str:
    """SHA-256 over the lines "SHA256  NAME" of adapter_config.json and the weight files, sorted by name."""
    adapter.require_numbers()
    if adapter.origin:
        return adapter_digest(adapter.origin.adapter)
    config = [adapter.config.path] if adapter.config else []
    return _digest_of([*config, *(header.path for header in adapter.headers)])


ADAPTER_KEY: Final = "adapter_to_gguf.adapter.sha256"  # in a GGUF: the adapter that it was made from
MERGED_KEY: Final = "adapter_to_gguf.merged.sha256"  # those that its base held already, in their order


def merged_adapters(base: BaseModel) -> tuple[str, ...]:
    """The digests of the adapters that a GGUF says it holds, in the order in which they were merged."""
    stated = (shard.kv.get(key) for shard in base.shards[:1] for key in (MERGED_KEY, ADAPTER_KEY))
    return tuple(digest for value in stated if isinstance(value, str) for digest in value.split())


def base_digest(base: BaseModel) -> str:
    """SHA-256 of a base: of a single file itself, of several files of the lines as for an adapter.

    A Hugging Face directory's are its weights, its config and its tokenizer.
    """
    paths = [shard.path for shard in base.shards] or _huggingface_files(base)
    return file_digest_of(paths[0]) if len(paths) == 1 else _digest_of(paths)


_OF_GIT: Final = frozenset({".git", ".gitattributes", ".github", ".gitignore"})


def directory_digest(directory: Path) -> str:
    """SHA-256 over the digests of all files of a directory, as OpenSSF model signing names a model.

    Files are taken in the order of their paths; Git's own are left out (model-signing 1.1.1, _signing/signing.py).
    Raises ConverterError where one can't be read.
    """
    from hashlib import sha256

    digest = sha256()
    for path in sorted(PurePosixPath(path.relative_to(directory).as_posix()) for path in _files_below(directory)):
        digest.update(bytes.fromhex(file_digest_of(directory / path)))
    return digest.hexdigest()


def _files_below(directory: Path) -> Iterator[Path]:
    n_files = 0
    with could_not_read(directory):
        for place, directories, names in os.walk(directory):
            here = Path(place)
            left_out = _OF_GIT if here == directory else frozenset[str]()
            directories[:] = [name for name in directories if name not in left_out]
            n_files += len(names)
            if n_files > FILES:
                raise ConverterError(f"{directory}: holds more than {FILES} files")
            yield from (here / name for name in names if name not in left_out)


def _huggingface_files(base: BaseModel) -> list[Path]:
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    others = (base.path / name for name in names)
    return [*{tensor.path for tensor in base.tensors.values()}, *(path for path in others if is_file(path))]


def _digest_of(paths: Iterable[Path]) -> str:
    from hashlib import sha256

    lines = [f"{file_digest_of(path)}  {path.name}\n" for path in sorted(paths, key=lambda path: path.name)]
    return sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def file_digest_of(path: Path) -> str:
    """SHA-256 of a file. Raises ConverterError where it can't be read."""
    from hashlib import file_digest

    with could_not_read(path), open_regular(path) as file:
        return file_digest(file, "sha256").hexdigest()
