"""PEFT's model run in two halves: each weight is read once for many sequences, and the head gets a few positions each.

Nothing of transformers or PEFT is done again here: it is the model's own forward both times, first with nothing for a
head, then with nothing below it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from converter.transformers_base import head_of
from converter.verification.layer_parts import is_divisible, parts, run_in_parts
from converter.verification.peft_layers import is_product
from converter.verification.stored_weights import keep_while_running, keeping

# Logits in float32 at a time, 64 MB: 64 positions of Gemma's 262,144 tokens.
_BLOCK_LOGITS: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class States:
    """What the head is given for one sequence of tokens: ``values`` are float32 (n_tokens, n_hidden)."""

    tokens: tuple[int, ...]
    values: torch.Tensor
    output: type[Any]  # transformers' own, for what the layers give


class Forward:
    """The halves of a forward. Sequences of up to ``shared_length`` tokens may run together."""

    def __init__(self, peft: Any, own_layers: nn.ModuleList | None) -> None:
        """``own_layers`` are those that the base alone runs, where they are others."""
        self._peft, self.model = peft, peft.get_base_model()
        self._head = head_of(self.model)
        self._body = _body_of(self.model, self._head)
        self.shared_length = _shared_length(self.model.config)
        for module in {*self.model.modules(), *(own_layers or ())}:
            if isinstance(module, GradientCheckpointingLayer):  # transformers' class of a decoder's layer
                keep_while_running(module)
            elif is_divisible(module) and not is_product(module) and len([*parts(module)]) > 1:
                run_in_parts(module)

    def states(self, sequences: Sequence[Sequence[int]]) -> list[States]:
        """What the head is given, of sequences that are padded behind: no token sees what comes after it."""
        longest = max(map(len, sequences))
        padded = torch.tensor([[*sequence, *[0] * (longest - len(sequence))] for sequence in sequences])
        outputs: list[Any] = []
        handle = self._body.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        try:
            with torch.no_grad(), _another_forward(self._head, lambda states, *_, **__: states):
                self._peft(input_ids=padded, use_cache=False)
        finally:
            handle.remove()
        values = outputs[0].last_hidden_state
        return [
            States(tuple(tokens), values[i, : len(tokens)].clone(), type(outputs[0]))
            for i, tokens in enumerate(sequences)
        ]

    def logits(self, states: States, positions: slice) -> np.ndarray:
        """Logits at some positions, float32 (n_positions, n_vocab)."""
        tokens = torch.tensor([states.tokens])[:, positions]
        given = states.output(last_hidden_state=states.values[None, positions])
        with torch.no_grad(), _another_forward(self._body, lambda *_, **__: given):
            logits: np.ndarray = self._peft(input_ids=tokens, use_cache=False).logits[0].numpy()
        return logits

    def blocks(self, n_tokens: int) -> Iterator[slice]:
        """Ranges of positions that cover a sequence, each small enough for logits."""
        step = max(1, _BLOCK_LOGITS // self.model.get_input_embeddings().weight.shape[0])
        return (slice(begin, min(begin + step, n_tokens)) for begin in range(0, n_tokens, step))

    @contextmanager
    def keeping_head(self) -> Iterator[None]:
        """With the head kept in memory once it is read."""
        with keeping(self._head.parameters()):
            yield


def _body_of(model: Any, head: Any) -> Any:
    """What gives the head its states. Llama 4's class has a name for it that the model hasn't."""
    if model.base_model is not model:
        return model.base_model
    return next(owner.model for owner in model.modules() if getattr(owner, "lm_head", None) is head)


@contextmanager
def _another_forward(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def _shared_length(config: PretrainedConfig) -> int:
    """Up to here a rope is the same for all lengths: dynamic and longrope are not (modeling_rope_utils.py)."""
    text: Any = config.get_text_config()
    ropes = getattr(text, "rope_parameters", None) or {}
    settings = [ropes, *(value for value in ropes.values() if isinstance(value, dict))]
    original = "original_max_position_embeddings"
    lengths = [found.get(original) for found in settings]
    lengths += [getattr(text, original, None), getattr(text, "max_position_embeddings", None)]
    return min((int(length) for length in lengths if length), default=1 << 31)  # BLOOM has neither
