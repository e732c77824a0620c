"""For every test: no model hub, and no thread that spins while another process works."""

import os
import shlex
import signal

import pytest

# Before transformers or PEFT are imported: a test that reaches for the hub is wrong, not slow.
os.environ["HF_HUB_OFFLINE"] = "1"
# Before torch is imported, too. On two busy cores, threads that spin while they wait made a training step four times
# as long as one thread alone.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# One of several processes of tests has one core.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell starts what it runs in the background with SIGINT ignored, and so would every command that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how each test that failed is run alone."""
    reports = [*terminalreporter.getreports("failed"), *terminalreporter.getreports("error")]
    names = dict.fromkeys(report.nodeid for report in reports)
    if names:
        terminalreporter.section("run one of them alone")
    for name in names:
        terminalreporter.write_line(f".venv/bin/pytest -n0 {shlex.quote(name)}")
