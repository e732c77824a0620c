from pathlib import Path

import pytest

from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.rules.base.setting_not_read import check
from tests.rules.specimens import write_huggingface

EXPERTS = {"model_type": "qwen3_moe", "num_experts": 3, "moe_intermediate_size": 24, "norm_topk_prob": True}
GEMMA3 = {"model_type": "gemma3_text", "query_pre_attn_scalar": 16}
LOCAL, GLOBAL = "sliding_attention", "full_attention"


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (GEMMA3, None),
        ({**GEMMA3, "layer_types": [LOCAL, LOCAL]}, None),
        ({**GEMMA3, "layer_types": [LOCAL, GLOBAL]}, "layer_types"),
        ({**GEMMA3, "sliding_window_pattern": 3}, "sliding_window_pattern"),
        ({**GEMMA3, "query_pre_attn_scalar": 17}, "query_pre_attn_scalar"),
        ({**GEMMA3, "sliding_window": None}, "sliding_window"),
        ({**GEMMA3, "attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({**GEMMA3, "use_bidirectional_attention": "vision"}, "use_bidirectional_attention"),
        ({"model_type": "smollm3", "no_rope_layers": [1, 1]}, None),
        ({"model_type": "smollm3", "no_rope_layers": [1, 0]}, "no_rope_layers"),
        ({**EXPERTS, "norm_topk_prob": False}, "norm_topk_prob"),
        ({**EXPERTS, "mlp_only_layers": [0]}, "mlp_only_layers"),
        ({"model_type": "olmo2", "tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"model_type": "olmo2", "tie_word_embeddings": False}, None),
    ],
)
def test_settings_that_a_graph_does_not_follow(config: dict[str, object], field: str | None, tmp_path: Path) -> None:
    base = read_base_model(write_huggingface(tmp_path / "base", **config))
    problems = check(read_adapter(tmp_path), base)
    assert [problem.where for problem in problems] == ([field] if field else [])
