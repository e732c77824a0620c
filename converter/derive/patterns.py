r"""What the patterns of an adapter's config say of a module: its rank, its alpha, and whether PEFT gives it a delta.

PEFT matches ``(.*\.)?(KEY)$`` against the module's path, and the first key in the file's order wins
(``get_pattern_key`` in peft/utils/other.py); what it selects says ``check_target_module_exists`` in
peft/tuners/tuners_utils.py (PEFT 0.21.2). All of it is matched in bounded time (regex.py).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Final

from converter.derive.budget import Budget, PatternError
from converter.derive.module_paths import EMBEDDING, EMBEDDINGS, HEAD, normal_module
from converter.read.adapter_config import AdapterConfig
from converter.read.limits import KEY_LENGTH

if TYPE_CHECKING:
    from converter.derive.regex import Regex

_ALL_LINEAR: Final = "all-linear"  # the word in place of a list; PEFT looks at it in lower case
# EMBEDDING_LAYER_NAMES in peft/utils/constants.py. PEFT trains GPT-2's, BLOOM's and Mamba's two ends as one too, saves
# the embedding in the place of lm_head, and leaves out the head when it loads that: what was trained is meant.
_ENDS: Final = ("embed_tokens", "lm_head", "wte", "word_embeddings", "embeddings")
_PLAIN: Final = "[A-Za-z0-9_.-]+"
_PLAIN_PART: Final = "[A-Za-z0-9_-]+"  # a module's own name, which as a regex stands for itself
# The fields that PEFT's methods match as they match rank_pattern.
_BY_KEY: Final = ("rank_pattern", "alpha_pattern", "block_size_pattern", "n_frequency_pattern")
# PEFT's own, where the config names no layers_pattern.
_ANY_LAYERS: Final = r".*?\.[^.]*\.(?P<idx>\d+)\."

_Selects = Callable[[str], bool]
_Asks = Callable[[str], bool | None]  # None where the pattern that would tell is not read


class Patterns:
    """All patterns of one config, with one budget for them. ``unread`` grows while they are asked."""

    def __init__(self, config: AdapterConfig) -> None:
        self._config = config
        self._budget = Budget()
        self.unread: dict[tuple[str, str], str] = {}  # field and pattern, and why it is not read

    def rank(self, path: str) -> int:
        """The rank that the config gives a module."""
        key = self._by_key["rank_pattern"].first(path)
        return self._config.r if key is None else self._config.rank_pattern.get(key, self._config.r)

    def alpha(self, path: str) -> float:
        """The alpha that the config gives a module."""
        key = self._by_key["alpha_pattern"].first(path)
        return self._config.lora_alpha if key is None else self._config.alpha_pattern.get(key, self._config.lora_alpha)

    def ask_all(self, paths: Iterable[str]) -> None:
        """Ask every pattern that PEFT runs about every path; ``unread`` tells of those that could not be asked."""
        by_key = [keys.first for keys in self._by_key.values() if keys]
        asked: list[Callable[[str], object]] = [*([self.selects] if self._selects_by_patterns else []), *by_key]
        if isinstance(self._config.raw.get("feedforward_modules"), str):
            asked.append(self._is_feedforward)
        if asked:
            for path in dict.fromkeys(path for path in paths if len(path) <= KEY_LENGTH):  # a longer one is no module's
                for ask in asked:
                    ask(path)

    @property
    def _selects_by_patterns(self) -> bool:
        """Whether a regex has a say in which modules are trained: lists of names can always be asked."""
        config = self._config
        named = isinstance(config.target_modules, str) or isinstance(config.exclude_modules, str)
        return named or bool(config.modules_to_save or config.layers_pattern)

    def selects(self, path: str) -> bool | None:
        """Whether PEFT gives the module a delta of its own, if the model has it; None where that can't be told.

        It can't where a pattern is not read, or where no module is named: PEFT has a default for some models then.
        """
        excluded, saved = self._excluded(path), self._saved(path)
        if excluded or saved:
            return False
        if excluded is None or saved is None:
            return None
        return self._targeted(path)

    def ties(self, path: str) -> bool:
        """Whether it is an end that PEFT gives the delta of the other: either is named (``_check_tied_modules``)."""
        return self._ties_the_ends and normal_module(path) in (EMBEDDING, HEAD)

    @cached_property
    def _ties_the_ends(self) -> bool:
        targets = self._config.target_modules
        if isinstance(targets, str):
            named = not self.names_all_linear and any(self._names(name) for name in _ENDS)
        else:
            named = any(name.rpartition(".")[2] in _ENDS for name in targets or ())
        return self._config.ensure_weight_tying and named

    @property
    def names_all_linear(self) -> bool:
        """Whether the word all-linear stands where PEFT writes the list."""
        targets = self._config.target_modules
        return isinstance(targets, str) and targets.lower() == _ALL_LINEAR

    def _targeted(self, path: str) -> bool | None:
        targets = self._config.target_modules
        if targets is None:
            return False if self._config.target_parameters else None
        found = self._names(path)
        if not found or isinstance(targets, str) or path in self._targets:
            return found
        return self._in_layers(path)

    @cached_property
    def _by_key(self) -> Mapping[str, "_Keys"]:
        raw = {name: self._config.raw.get(name) for name in _BY_KEY}
        if self._config.is_lora:
            raw |= {"rank_pattern": self._config.rank_pattern, "alpha_pattern": self._config.alpha_pattern}
        return {name: _Keys(self, name, keys if isinstance(keys, Mapping) else ()) for name, keys in raw.items()}

    @cached_property
    def _targets(self) -> frozenset[str]:
        return frozenset(self._config.target_modules or ())

    @cached_property
    def _names(self) -> _Asks:
        targets = self._config.target_modules
        if self.names_all_linear:
            return _Question(self, "target_modules", _ALL_LINEAR, lambda: _is_linear)
        return self._question("target_modules", targets)

    @cached_property
    def _excluded(self) -> _Asks:
        return self._question("exclude_modules", self._config.exclude_modules)

    @cached_property
    def _is_feedforward(self) -> _Asks:
        value = self._config.raw.get("feedforward_modules")  # IA3's
        return self._question("feedforward_modules", value if isinstance(value, str) else ())

    def _question(self, name: str, value: str | tuple[str, ...] | None) -> _Asks:
        """PEFT matches a string as a regex for the whole path, and a list as the ends of paths."""
        if isinstance(value, str):
            return _Question(self, name, value, lambda: self.regex(value).fullmatches)
        return _ends_with(value) if value else _never

    @cached_property
    def _saved(self) -> _Asks:
        r"""PEFT matches ``(^|.*\.)NAME($|\..*)`` for each of modules_to_save, and gives none of them a delta."""
        names = self._config.modules_to_save
        if not names:
            return _never

        def read() -> _Selects:
            plain = frozenset(name for name in names if re.fullmatch(_PLAIN_PART, name))
            others = dict.fromkeys(name for name in names if name not in plain)
            patterns = [self.regex(rf"(^|.*\.){name}($|\..*)") for name in others]
            return lambda path: (
                not plain.isdisjoint(path.split(".")) or any(pattern.matches(path) for pattern in patterns)
            )

        return _Question(self, "modules_to_save", ", ".join(names), read)

    @cached_property
    def _in_layers(self) -> _Asks:
        layers, names = self._config.layers_to_transform, self._config.layers_pattern
        if not (layers or names):
            return _always

        def read() -> _Selects:
            patterns = [_layer_pattern(name) for name in names] or [re.compile(_ANY_LAYERS)]
            return lambda path: not layers or _layer(path, patterns) in layers

        return _Question(self, "layers_pattern", ", ".join(names), read)

    def regex(self, pattern: str) -> "Regex":
        """Read a pattern, to be matched within the budget. Raises PatternError."""
        from converter.derive.regex import regex

        return regex(pattern, self._budget)

    @property
    def is_spent(self) -> bool:
        """Whether the budget is gone, which ``unread`` tells of."""
        return self._budget.left < 0

    def spend(self, steps: int) -> None:
        """Take steps from the budget. Raises PatternError where it is empty."""
        self._budget.spend(steps)


class _Question:
    """One field of the config, to be asked of a path; None is the answer where its pattern is not read."""

    def __init__(self, patterns: Patterns, name: str, pattern: str, read: Callable[[], _Selects]) -> None:
        self._patterns, self._name, self._pattern, self._read = patterns, name, pattern, read

    @cached_property
    def _selects(self) -> _Selects:
        return self._read()

    def __call__(self, path: str) -> bool | None:
        if self._patterns.is_spent or (self._name, self._pattern) in self._patterns.unread:
            return None
        try:
            return self._selects(path)
        except PatternError as error:
            self._patterns.unread[self._name, self._pattern] = str(error)
            return None


class _Keys:
    """The keys of a pattern field, which are regexes, and nearly always plain names.

    Plain names are looked up: as many of them as there are modules (EVA writes such) would take their product in
    matches. A dot in one stands for any character, so a name is found by the text with dots at its dots' places.
    """

    def __init__(self, patterns: Patterns, name: str, keys: Iterable[str]) -> None:
        self._patterns, self._name = patterns, name
        self._order: dict[str, int] = {}
        self._plain: dict[tuple[int, ...], set[str]] = {}  # by length and places of dots
        self._regexes: list[str] = []
        for key in keys:
            self._order[key] = len(self._order)
            if re.fullmatch(_PLAIN, key):
                places = (len(key), *(i for i, c in enumerate(key) if c == "."))
                self._plain.setdefault(places, set()).add(key)
            else:
                self._regexes.append(key)
        self._read: dict[str, Regex] = {}

    def __bool__(self) -> bool:
        return bool(self._order)

    def first(self, path: str) -> str | None:
        """The first key that matches a path as PEFT matches it; one that is not read matches nothing."""
        if not self._order or self._patterns.is_spent:
            return None
        try:
            plain = min(self._plain_matches(path), key=self._order.__getitem__, default=None)
        except PatternError as error:
            self._patterns.unread[self._name, ""] = str(error)
            return None
        before = len(self._order) if plain is None else self._order[plain]
        matching = (key for key in self._regexes if self._order[key] < before and self._matches(key, path))
        return next(matching, plain)

    def _plain_matches(self, path: str) -> Iterable[str]:
        for (length, *dots), keys in self._plain.items():
            self._patterns.spend(1 + length // 30)
            begin = len(path) - length
            if begin < 0 or (begin and path[begin - 1] != "."):
                continue
            end = list(path[begin:])
            for place in dots:
                end[place] = "."
            if (found := "".join(end)) in keys:
                yield found

    def _matches(self, key: str, path: str) -> bool:
        if self._patterns.is_spent or (self._name, key) in self._patterns.unread:
            return False
        try:
            if key not in self._read:
                self._patterns.regex(key)  # PEFT runs it between brackets, where `a)(b` would be one
                self._read[key] = self._patterns.regex(rf"(.*\.)?({key})$")
            return self._read[key].matches(path)
        except PatternError as error:
            self._patterns.unread[self._name, key] = str(error)
            return False


def _never(_path: str) -> bool:
    return False


def _always(_path: str) -> bool:
    return True


def _is_linear(path: str) -> bool:
    """Whether all-linear stands for it: every linear module but the head (``_maybe_include_all_linear_layers``)."""
    return normal_module(path) not in {*EMBEDDINGS, HEAD}


def _ends_with(names: Iterable[str]) -> _Selects:
    """What asks whether a path is one of the names or ends in one: the few of a list, or the thousands of a file."""
    ends, dotted = frozenset(names), tuple(f".{name}" for name in names)
    if len(ends) < 32:
        return lambda path: path in ends or path.endswith(dotted)
    return lambda path: path in ends or any(path[i + 1 :] in ends for i, c in enumerate(path) if c == ".")


def _layer_pattern(name: str) -> re.Pattern[str]:
    """PEFT's regex for the layer's number behind a name, which has to be one: a character for a character."""
    from converter.derive.regex import parsed

    if any(str(kind) not in {"LITERAL", "ANY", "IN"} for kind, _ in parsed(name)):
        raise PatternError("is more than a name")
    try:
        return re.compile(rf"(?:^|.*?\.){name}\.(?P<idx>\d+)\.")
    except re.error as error:  # flags, which may stand at the beginning alone
        raise PatternError(f"is no regex behind another: {error}") from error


def _layer(path: str, patterns: Iterable[re.Pattern[str]]) -> int | None:
    matches = (pattern.match(path) for pattern in patterns)
    return next((int(match["idx"]) for match in matches if match), None)
