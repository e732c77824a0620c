"""What each adapter of fixtures/served.py makes use of, beside measured.tsv: python -m benchmarks.targets.uses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import converter
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.targets.features import features
from fixtures.served import BASES, recipes_on, served_adapter, served_base

TABLE: Final = Path(__file__).parents[2] / "tests" / "targets" / "uses.tsv"
HEAD: Final = ("base", "adapter", "class", "features", "codes")


def rows(base: str) -> Iterator[tuple[str, ...]]:
    """A row for each adapter: its base's class, its features, and the rules that refuse it wherever it goes."""
    model = read_base_model(served_base(base))
    stated = model.config["architectures"]
    assert isinstance(stated, list)
    for recipe in recipes_on(base):
        adapter = read_adapter(served_adapter(recipe, base))
        uses = " ".join(use.feature for use in features(adapter, model))
        report = converter.check(adapter, model)
        codes = sorted({finding.code for finding in report.findings if finding.blocks and not finding.gguf})
        yield base, recipe, str(stated[0]), uses, " ".join(codes)


if __name__ == "__main__":
    lines = [HEAD, *(row for base in BASES for row in rows(base))]
    TABLE.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
