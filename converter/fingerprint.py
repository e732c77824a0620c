"""The fingerprint of a base: the same for a Hugging Face directory and every GGUF of it, however it is quantised.

It is SHA-256 over the weights of the norms. llama.cpp's converters and quantisers leave vectors in F32
(``prepare_tensors`` in conversion/base.py, ``tensor_allows_quantization`` in src/llama-quant.cpp), so that these few
numbers are the same bits in every file of one model. What it can't tell apart: models whose norms are equal, such as a
base and a fine-tune that froze them (every merged LoRA).
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from converter.derive.base_model import BaseModel
from converter.errors import ConverterError
from converter.read.files import Unreadable, inside, read_bytes, read_whole
from converter.read.limits import RECORD_NBYTES
from converter.read.stored import StoredTensor
from converter.read.strict_json import json_object

RECORD_NAME: Final = "base_fingerprint.json"  # in an adapter's directory, beside adapter_config.json
KEY: Final = "adapter_to_gguf.base.fingerprint"  # in the GGUF made from it
_SCHEME: Final = "norms-sha256:"  # what is hashed; records of another scheme can't be compared
_DTYPES: Final = ("F32", "F16", "BF16")


class RecordedBase(NamedTuple):
    """The base that an adapter's training run noted down: its fingerprint, and what it was called."""

    fingerprint: str
    of: str


def fingerprint(base: BaseModel) -> str | None:
    """The base's fingerprint, or None where it has no norms that llama.cpp would keep as they are.

    That is so without weights, without a table, where a norm is neither F32, F16 nor BF16, or where a
    quantiser of PyTorch's has written the base: it may have rounded the norms to the type that it computes in.

    Raises ConverterError where a file can't be read any more.
    """
    if base.on_hub:
        return base.norms_digest
    return digest_of_norms(base, lambda stored: read_bytes(stored.path, stored.offset, stored.nbytes))


def digest_of_norms(base: BaseModel, bytes_of: Callable[[StoredTensor], bytes]) -> str | None:
    """The fingerprint, of norms whose bytes are got by ``bytes_of``."""
    norms = [] if base.match else _norms(base.original or base)
    if base.quantization or not norms or any(stored.dtype not in _DTYPES for _, stored, _ in norms):
        return None
    from hashlib import sha256

    digest = sha256()
    for module, stored, add in norms:
        digest.update(f"{module} {stored.n_elements}\n".encode())
        digest.update(_as_gguf_keeps_it(stored, add, bytes_of(stored)))
    return f"{_SCHEME}{digest.hexdigest()}"


def stored_norms(base: BaseModel) -> tuple[StoredTensor, ...]:
    """What the fingerprint is made from."""
    return tuple(stored for _, stored, _ in _norms(base))


def recorded_base(directory: Path) -> RecordedBase | None:
    """What ``base_fingerprint.json`` in an adapter's directory says; None where there is none that can be used.

    Raises ConverterError where the system doesn't let us read it.
    """
    path = directory / RECORD_NAME
    try:
        record = json_object(read_whole(inside(path), RECORD_NBYTES))
    except (Unreadable, FileNotFoundError):
        return None
    except OSError as error:
        raise ConverterError(f"{path}: can't be read: {error.strerror or error}") from error
    found = record.get("fingerprint")
    if not isinstance(found, str) or not found.startswith(_SCHEME):
        return None
    return RecordedBase(found, str(record.get("of", "")))


def _norms(base: BaseModel) -> list[tuple[str, StoredTensor, float]]:
    """The norms in order of their modules: where each one's weight lies, and what GGUF has more than is stored."""
    norms: list[tuple[str, StoredTensor, float]] = []
    for name, stored in base.tensors.items():
        module, _, parameter = name.rpartition(".")
        is_vector = len(stored.shape) == 1 or module.endswith("norm")  # Mamba's has a row for each group in GGUF
        place = base.place(module) if parameter == "weight" and is_vector else None
        # Some forms of a model lack norms that no graph looks at: those of keys that are another layer's.
        is_unread = place is not None and "shared_kv" in place.optional and base.may_lack(module)
        if place and len(place.shape) == 1 and not is_unread:
            norms.append((place.module, stored, 0.0 if base.format == "gguf" else place.add))
    return sorted(norms, key=lambda norm: norm[0])


def _as_gguf_keeps_it(stored: StoredTensor, add: float, raw: bytes) -> bytes:
    """A vector as little-endian float32. F16 is added to as F16, all else as F32: so do llama.cpp's converters."""
    n = stored.n_elements
    if stored.dtype == "BF16":
        wide = bytearray(2 * len(raw))
        wide[2::4], wide[3::4] = raw[0::2], raw[1::2]
        raw = bytes(wide)
    form = f"<{n}e" if stored.dtype == "F16" else f"<{n}f"
    if add:
        raw = struct.pack(form, *(value + add for value in struct.unpack(form, raw)))
    return struct.pack(f"<{n}f", *struct.unpack(form, raw)) if stored.dtype == "F16" else raw
