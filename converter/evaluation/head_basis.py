"""Measures the head of a model that is to be hosted wide (planning/rehost/wide.py): singular values, norms of rows."""

import numpy as np

from converter.dtypes import F32
from converter.evaluation.head_question import HeadBasis, HeadQuestion
from converter.evaluation.matrices import BLOCK_N_ELEMENTS, head_factors, matrix_rows, ranges
from converter.evaluation.rows import Doubles, count, doubles
from converter.sources import Given


def measure_head(question: HeadQuestion) -> HeadBasis:
    """Read the head's factors and the embedding once each, block by block. Raises ConverterError where that fails."""
    rights = [doubles(delta.right, 0, count(delta.right)) for delta in question.head if delta.right]
    a = np.vstack(rights)
    weight, _ = matrix_rows(question.norm, BLOCK_N_ELEMENTS, F32)(0, a.shape[1])
    u, singular, basis = np.linalg.svd(a * weight[:, 0], full_matrices=False)
    mixing: Doubles = u * singular
    blocks = list(ranges((question.n_vocab, a.shape[1]), BLOCK_N_ELEMENTS))
    head2 = np.zeros(len(singular))
    for begin, end in blocks:
        head2 += np.square(head_factors(question.head, begin, end) @ mixing).sum(axis=0)
    embedding2 = _embedding_norms(question, blocks)
    rms = np.sqrt(embedding2.mean() / a.shape[1])
    head_rms = np.sqrt(head2 / question.n_vocab)
    gains = np.where(head_rms > 0, question.gain * rms / np.where(head_rms > 0, head_rms, 1.0), 1.0)
    mixing = mixing * gains
    b2 = [np.square(head_factors(question.head, begin, end) @ mixing).sum(axis=1) for begin, end in blocks]
    return HeadBasis(
        _given(basis),
        _given(mixing),
        tuple(map(float, gains)),
        float(embedding2.mean()),
        float(embedding2.max()),
        float((2 * embedding2 + np.concatenate(b2)).max()),
    )


def _embedding_norms(question: HeadQuestion, blocks: list[tuple[int, int]]) -> Doubles:
    """|factor * E|^2 of each row."""
    rows = matrix_rows(question.embedding, BLOCK_N_ELEMENTS, F32)
    norms = [np.square(rows(begin, end)[0]).sum(axis=1) for begin, end in blocks]
    return np.concatenate(norms) * question.factor**2


def _given(values: Doubles) -> Given:
    rows, columns = values.shape
    return Given((rows, columns), np.ascontiguousarray(values, np.float64).tobytes())
