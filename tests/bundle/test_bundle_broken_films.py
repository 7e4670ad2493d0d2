"""Training and pre-training on a folder with broken films, as a user types it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from monai_landmark.privacy import log_name

MonaiBundle = Callable[..., None]
STEP = ["--architecture", "diffusion-tiny", "--epochs", "1", "--steps_per_epoch", "1", "--batch_size", "1"]
STEP += ["--precision", "float32", "--spatial_size", "[64,64]"]


@pytest.fixture
def damaged(films: Path, tmp_path: Path) -> tuple[Path, str]:
    """One of five annotated films is broken; the folder and the film."""
    folder = Path(shutil.copytree(films, tmp_path / "films"))
    item = json.loads((folder / "datalist.json").read_text())["training"][0]
    file = folder / item["image"]
    file.write_bytes(file.read_bytes()[:1000])
    return folder, item["id"]


@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_broken_films(
    command: str,
    damaged: tuple[Path, str],
    bundle: Path,
    monai_bundle: MonaiBundle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    folder, broken = damaged
    words = ["--config_file", bundle / "configs" / f"{command}.yaml", "--bundle_root", bundle, "--dataset_dir", folder]
    words += ["--output_dir", tmp_path / "out", *STEP, *(["--samples", "0"] if command == "pretrain" else [])]
    with pytest.raises(SystemExit) as stopped:
        monai_bundle("run", command, *words)
    assert stopped.value.code == 3
    assert not list(tmp_path.glob("out/model*"))
    monai_bundle("run", command, *words, "--broken_share", "0.25")
    logged = "".join(capsys.readouterr())
    assert f"cannot be read: film {log_name(broken)}: the picture is broken" in logged and broken not in logged
    used = json.loads((tmp_path / "out" / "model.json").read_text())["films"]
    items = json.loads((folder / "datalist.json").read_text())["training"]
    assert (
        used == 5 if command == "pretrain" else set(used) == {item["sha256"] for item in items} - {items[0]["sha256"]}
    )
