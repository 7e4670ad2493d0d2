"""Freed memory stays in the process: measured by the page faults of a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from monai_landmark.engines import keep_freed_memory

FAULTS = """
import importlib.util, resource, sys
import numpy as np
spec = importlib.util.spec_from_file_location("heap", sys.argv[1])
heap = importlib.util.module_from_spec(spec)
spec.loader.exec_module(heap)
if sys.argv[2] == "keep":
    assert heap.keep_freed_memory()
np.ones(8_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(8_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_block_that_was_freed_is_used_again() -> None:
    file = sys.modules[keep_freed_memory.__module__].__file__
    faults = {}
    for word in ("plain", "keep"):
        command = [sys.executable, "-c", FAULTS, str(file), word]
        faults[word] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert faults["keep"] < 50 < faults["plain"]


def test_another_system_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert keep_freed_memory() is False
