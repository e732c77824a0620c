"""What a run of adapter-check can be written as: a module for each format, imported when it is asked for."""

from importlib import import_module
from typing import Final

from converter.report.outcomes import Run

# Name, what it is for: in the order of the documentation.
FORMATS: Final = {
    "text": "for people",
    "json": "for programs: docs/report.schema.json",
    "sarif": "SARIF 2.1.0: code scanning",
    "junit": "JUnit's XML: a test for each rule",
    "gitlab": "GitLab's code quality report",
    "github": "annotations of GitHub Actions, ten at most",
    "markdown": "a comment or a job summary",
    "html": "one page without outside resources, with the norm of each module's delta",
}


def rendered(name: str, run: Run) -> str:
    """The outcomes of a run in the format of this name."""
    text: str = import_module(f"converter.report.formats.{name}").render(run)
    return text
