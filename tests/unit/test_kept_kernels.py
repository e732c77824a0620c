"""Machine code that numba keeps on disk is made anew when anything changes that it was made from."""

import hashlib
import re
from pathlib import Path

import converter.evaluation

HERE = Path(converter.evaluation.__file__).parent
MODULES = ("kernels.py", "lockstep/with_minimum.py", "lockstep/with_scale.py")


def imported(text: str) -> list[Path]:
    names = re.findall(r"^from converter\.evaluation\.(jit|lockstep\.lanes) import", text, re.MULTILINE)
    return [HERE / f"{name.replace('.', '/')}.py" for name in sorted(names)]


def test_each_module_of_kernels_is_known() -> None:
    assert {path for path in HERE.rglob("*.py") if "@kept" in path.read_text()} == {HERE / name for name in MODULES}


def test_a_module_changes_with_those_that_its_kernels_are_made_of() -> None:
    """Numba asks for its own text, in which that of the others is as a digest. Put the wanted one there."""
    for name in MODULES:
        text = (HERE / name).read_text(encoding="utf-8")
        wanted = hashlib.sha256(b"".join(path.read_bytes() for path in imported(text))).hexdigest()[:16]
        found = re.search(r'^_MADE_OF: Final = "(\w+)"', text, re.MULTILINE)
        assert found, name
        assert found[1] == wanted, name
