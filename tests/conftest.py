"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
torch.set_num_threads(1 if _PROCESSES > 1 else min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real films that stay outside the project; the test is skipped where it is absent."""
    default = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    root = Path(os.environ.get("MONAI_LANDMARK_DATA", default)).resolve()
    if not root.is_dir():
        pytest.skip(f"real films are not here ({root}); set MONAI_LANDMARK_DATA to run this test")
    return root
