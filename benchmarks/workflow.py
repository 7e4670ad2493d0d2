"""A bundle's commands in this process: of a short training, a new interpreter would take a large part of the time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.bundle import create_workflow


def run_bundle(bundle: Path, config: str, kind: str, command: str, **keys: Any) -> None:
    """Do what ``python -m monai.bundle run`` does.

    Args:
        bundle: its folder.
        config: name of the config file.
        kind: of MONAI's workflow: ``train``, ``evaluation`` or ``infer``.
        command: id that is run.
        **keys: overrides.
    """
    file, meta = bundle / "configs" / f"{config}.yaml", bundle / "configs" / "metadata.json"
    options = {"config_file": str(file), "meta_file": str(meta), "workflow_type": kind, "run_id": command}
    workflow = create_workflow(**options, logging_file=False, bundle_root=str(bundle), **keys)
    workflow.run()
    workflow.finalize()
