"""For every test: no model hub, and no thread that spins while another process works."""

import os
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


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the tests out to processes by file, those of real models to one of them, and first.

    Two real models at once would take more memory than a laptop has to spare.
    """
    items.sort(key=lambda item: item.get_closest_marker("model") is None)
    for item in items:
        is_real = item.get_closest_marker("model")
        item.add_marker(pytest.mark.xdist_group("real models" if is_real else item.location[0]))
