import re
from dataclasses import replace
from pathlib import Path

import pytest

from converter.errors import ConverterError
from converter.training.settings import TrainingSettings
from converter.training.sweep.space import Space, Values, anchors, combinations, offered, read_sweep, settings_of

SAFE = Values(0, 2e-4, 0.05, 2.0, False, "none", False, 16, "none")
SETTINGS = TrainingSettings(Path("base"), "data.jsonl", Path("out"))


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    return str(path)


def test_the_default_comes_with_the_package() -> None:
    sweep = read_sweep("default")
    assert (sweep.n_trials, sweep.sampler, sweep.pruner, sweep.tolerance) == (24, "tpe", "median", 0.01)
    assert sweep.space.r == (16, 32, 64)
    assert sweep.space.seed == (0, 1, 2)


@pytest.mark.parametrize("base_has_biases", [False, True])
def test_biases_are_trained_where_the_base_has_some_and_added_where_it_has_none(base_has_biases: bool) -> None:
    space = offered(read_sweep("default").space, SETTINGS, base_has_biases=base_has_biases)
    assert ("lora_only" in space.bias) is base_has_biases
    assert (True in space.lora_bias) is not base_has_biases


def test_rslora_is_tried_at_large_ranks_only() -> None:
    space = offered(read_sweep("default").space, SETTINGS, base_has_biases=True)
    assert {values.r for values in combinations(space) if values.use_rslora} == {64}


def test_a_head_with_a_lora_has_no_bias_of_its_own() -> None:
    space = offered(read_sweep("default").space, SETTINGS, base_has_biases=False)
    assert {values.head for values in combinations(space) if values.lora_bias} == {"none"}


def test_every_combination_is_there_once_and_heads_change_fastest() -> None:
    space = offered(read_sweep("default").space, SETTINGS, base_has_biases=True)
    every = combinations(space)
    # Three ranks without rsLoRA and one with it.
    assert len(every) == len(set(every)) == (3 + 1) * 2 * 4 * 2 * 2 * 3 * 3
    assert [values.head for values in every[:2]] == ["none", "lora"]
    assert [values.seed for values in (every[0], every[-1])] == [0, 2]


def test_what_a_file_leaves_out_is_as_the_settings_say() -> None:
    settings = replace(SETTINGS, r=8, lora_alpha=4, learning_rate=3e-4)
    (only,) = combinations(offered(Space(), settings, base_has_biases=False))
    assert only == Values(0, 3e-4, 0.05, 0.5, False, "none", False, 8, "none")


def test_the_safe_setting_is_tried_first_with_each_head_then_larger_ranks() -> None:
    space = offered(read_sweep("default").space, SETTINGS, base_has_biases=False)
    first = anchors(space)
    assert [(values.r, values.head) for values in first] == [
        (r, head) for r in (16, 32, 64) for head in ("none", "lora")
    ]
    assert {replace(values, r=16, head="none") for values in first} == {first[0]}
    assert first[0] == SAFE
    assert {type(values.alpha_over_r) for values in first} == {float}


def test_a_trial_has_its_own_alpha_and_place() -> None:
    values = Values(3, 1e-4, 0.1, 2.0, True, "none", False, 64, "lora")
    run = settings_of(values, replace(SETTINGS, resume=True), Path("trials/0000"))
    assert (run.lora_alpha, run.use_rslora, run.head, run.seed, run.output.name) == (128, True, "lora", 3, "0000")
    assert (run.target, run.resume) == (None, False)


@pytest.mark.parametrize("biased", [replace(SAFE, bias="lora_only"), replace(SAFE, lora_bias=True)])
def test_biases_aim_at_a_model_of_their_own_as_a_lora_cannot_hold_them(biased: Values) -> None:
    assert settings_of(biased, SETTINGS, Path("out")).target == "model"
    assert settings_of(biased, replace(SETTINGS, target="lora"), Path("out")).target == "lora"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sweeep]", "has a table or key 'sweeep'"),
        ("space = 1", "[space] is 1, wanted a table"),
        ("[sweep]\nn_trial = 3", "has an unknown key 'n_trial'; known are n_trials"),
        ("[sweep]\nn_trials = 0", "n_trials is 0, wanted a whole number above 0"),
        ("[sweep]\nn_trials = true", "n_trials is True"),
        ("[sweep]\nsampler = 'random'", "sampler is 'random', wanted one of tpe, grid"),
        ("[sweep]\nsampler = ['tpe']", "sampler is ['tpe']"),
        ("[sweep]\nsampler = 'grid'\nn_trials = 3", "a grid runs every combination"),
        ("[sweep]\ntolerance = 1", "tolerance is 1, wanted a number from 0 to below 1"),
        ("[space]\nrank = [1]", "has an unknown key 'rank'"),
        ("[space]\nr = 16", "r is 16, wanted a list"),
        ("[space]\nr = []", "r is [], wanted a list"),
        ("[space]\nr = [16, 16]", "lists a value twice"),
        ("[space]\nr = [16.0]", "r is 16.0, wanted a whole number above 0"),
        ("[space]\nlora_dropout = [1]", "lora_dropout is 1"),
        ("[space]\nlearning_rate = [nan]", "learning_rate is nan, wanted a number above 0"),
        (f"[space]\nlearning_rate = [1{'0' * 400}]", "learning_rate is 1000"),
        ("[space]\nhead = ['both']", "head is 'both', wanted one of none, lora, full, tied"),
        ("[space]\nuse_rslora = [1]", "use_rslora is 1, wanted true or false"),
        ("[space]\nrslora_from_r = [64]", "rslora_from_r is [64], wanted a whole number"),
        ("r = ", "is no TOML"),
    ],
)
def test_what_a_sweep_cannot_be_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConverterError, match=re.escape(message)) as caught:
        read_sweep(written(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "sweep.toml" in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConverterError, match=r"nowhere\.toml: can't be read"):
        read_sweep("nowhere.toml")


@pytest.mark.parametrize(
    ("space", "base_has_biases", "message"),
    [
        (Space(bias=("lora_only",)), False, r"\[space\] bias: the base has no biases"),
        (Space(lora_bias=(True,)), True, r"\[space\] lora_bias: the base has biases"),
    ],
)
def test_a_list_of_which_this_base_leaves_nothing_is_refused(space: Space, base_has_biases: bool, message: str) -> None:
    with pytest.raises(ConverterError, match=message):
        offered(space, SETTINGS, base_has_biases=base_has_biases)
