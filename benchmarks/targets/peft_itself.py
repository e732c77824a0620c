"""What transformers and PEFT make of adapters when they serve: load_adapter, and merge_and_unload saved and loaded."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from peft import PeftModel

from fixtures.served import load, log_probabilities

Answer = npt.NDArray[np.float64] | str


def load_adapter(base: Path, adapter: Path) -> torch.nn.Module:
    """The way of transformers alone: the model takes the adapter."""
    model = load(base)
    model.load_adapter(str(adapter))
    return model


def merge(base: Path, adapter: Path) -> torch.nn.Module:
    """PEFT's way to a model without an adapter, as those who merge have it: saved, and loaded again."""
    merged = PeftModel.from_pretrained(load(base), str(adapter)).merge_and_unload()
    with TemporaryDirectory() as directory:
        merged.save_pretrained(directory)
        return load(Path(directory))


WAYS: Final[Mapping[str, Callable[[Path, Path], torch.nn.Module]]] = {
    "transformers": load_adapter,
    "peft-merge": merge,
}


def answer(target: str, base: Path, adapter: Path) -> Answer:
    """Log-probabilities, or what it was refused with."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return log_probabilities(WAYS[target](base, adapter)).numpy()
    except Exception as error:  # noqa: BLE001  whatever it is, it is the answer
        return f"{type(error).__name__}: {error}"
