"""A training step frees hundreds of megabytes and asks for them again: they need not leave the process."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, so that it is not cleared and mapped anew in every step.

    By default glibc takes large blocks from the system and gives them back one by one, and the faults of their pages
    are a fifth of a training step on a CPU (``benchmarks/train_step.py``). The process' size stays at its peak.

    Returns:
        Whether it was done; False where the C library is not glibc.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_MMAP_MAX, 0) == 1 and mallopt(_TRIM_THRESHOLD, -1) == 1
