"""The vocabulary has grown, but the adapter has no numbers for all new rows of the embedding or the head.

Why it matters: a delta needs rows to be added to, and the base has none there. PEFT would take those that
resize_token_embeddings made up on the day, which nobody has saved.

What to do: save the adapter again with `model.save_pretrained(DIR, save_embedding_layers=True)`. Trained ends are
whole with modules_to_save=["embed_tokens", "lm_head"], or with trainable_token_indices of all new tokens.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDING, HEAD
from converter.derive.vocabulary import Vocabulary, vocabulary_of
from converter.diagnostics import MODEL, BaseCheck, Kind, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each end that lacks new rows, for the deployments that write it."""
    vocabulary = vocabulary_of(adapter, base)
    if vocabulary is None or vocabulary.unclear or vocabulary.n_rows <= vocabulary.n_base:
        return
    head_is_written = frozenset[Kind]({"untie-model"}) if base.tied else MODEL
    for module, blocks in ((EMBEDDING, MODEL), (HEAD, head_is_written)):
        if not _gives_rows(adapter, base, module, vocabulary):
            rows = f"rows {vocabulary.n_base} to {vocabulary.n_rows - 1}"
            yield Problem(module, f"has no numbers for all of its new {rows}", blocks)


def _gives_rows(adapter: Adapter, base: BaseModel, module: str, vocabulary: Vocabulary) -> bool:
    sources = {module}
    saved = [t for t in adapter.saved_modules if t.module in sources]
    if base.tied and not any(t.module == module and t.role != "copy" for t in adapter.tensors):
        # A tied base's head that nothing parts from the embedding follows its rows, but not what it was trained to.
        sources.add(EMBEDDING)
        saved = [t for t in adapter.saved_modules if adapter.is_saved_pair and t.module in sources]
    whole = (*saved, *(t for t in adapter.base_layers if t.module in sources))
    if any(t.role.endswith("weight") and t.tensor.shape[:1] >= (vocabulary.n_rows,) for t in whole):
        return True
    indices = {index for rows in adapter.token_rows if rows.module in sources for index in rows.indices}
    return sum(index >= vocabulary.n_base for index in indices) == vocabulary.n_rows - vocabulary.n_base


RULE = Rule("BM022", "rows-not-given", Severity.ERROR, BaseCheck(check), gguf=True)
