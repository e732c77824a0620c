from pathlib import Path

from converter.derive.base_model import read_base_model
from converter.derive.windows import ignored_window
from tests.rules.specimens import write_huggingface


def test_a_window_is_ignored_where_the_graph_has_none(tmp_path: Path) -> None:
    for config, window in (
        ({"model_type": "mistral", "sliding_window": 4096, "max_position_embeddings": 32768}, 4096),
        ({"model_type": "mistral", "sliding_window": 4096, "max_position_embeddings": 4096}, None),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}, None),
        ({"model_type": "gemma2", "sliding_window": 4096}, None),
    ):
        assert ignored_window(read_base_model(write_huggingface(tmp_path / "base", **config))) == window
