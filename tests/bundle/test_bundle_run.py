"""The bundle's four commands, one after another, as a user types them."""
from __future__ import annotations
import json
from pathlib import Path

def test_a(model: Path) -> None:
    print(sorted(p.name for p in model.iterdir()))
    print(json.loads((model/'model.json').read_text()).keys())
