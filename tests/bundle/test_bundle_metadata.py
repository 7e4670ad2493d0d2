"""metadata.json against MONAI's verification and against the package itself; no network."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

import monai_landmark
from monai_landmark.data.schema import LandmarkSchema

SCHEMA = Path(__file__).with_name("bundle_metadata.schema.json")
MonaiBundle = Callable[..., None]


@pytest.fixture()
def metadata(bundle: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return content


def test_metadata_is_verified(monai_bundle: MonaiBundle, bundle: Path) -> None:
    monai_bundle("verify_metadata", "--meta_file", bundle / "configs" / "metadata.json", "--filepath", SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["required_packages_version"], None),
        (["network_data_format"], None),
        (["network_data_format", "inputs", "image", "dtype"], None),
        (["diffusion_data_format", "outputs"], None),
        (["diffusion_data_format", "inputs", "timesteps", "value_range"], None),
        (["network_data_format", "outputs", "pred", "num_channels"], "22"),
        (["version"], 1),
    ],
)
def test_bad_metadata_is_rejected(
    monai_bundle: MonaiBundle, metadata: dict[str, Any], tmp_path: Path, path: list[str], value: Any
) -> None:
    place = metadata
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="Failed validating"):
        monai_bundle("verify_metadata", "--meta_file", tmp_path / "metadata.json", "--filepath", SCHEMA)


def test_schema_is_the_one_that_the_model_zoo_uses(metadata: dict[str, Any]) -> None:
    assert metadata["schema"].endswith("/schema/meta_schema_20240725.json")


def test_version_is_the_package_version_and_in_the_changelog(metadata: dict[str, Any]) -> None:
    assert metadata["version"] == monai_landmark.__version__
    assert metadata["changelog"][metadata["version"]]


def test_versions_are_those_tested_together(metadata: dict[str, Any], bundle: Path) -> None:
    lines = (bundle.parents[1] / "constraints.txt").read_text().splitlines()
    pinned = {
        match[1].lower(): match[2]
        for line in reversed(lines)  # of two lines for two Pythons the first, newer one counts
        if (match := re.match(r"([\w-]+)==([\w.]+)", line))
    }
    stated = {name.lower(): found for name, found in metadata["required_packages_version"].items()}
    stated |= {
        name: metadata[f"{key}_version"] for name, key in [("monai", "monai"), ("torch", "pytorch"), ("numpy", "numpy")]
    }
    assert stated == {name: pinned[name] for name in stated}
    assert Version(version("monai")) >= Version(metadata["monai_version"])


def test_output_is_one_named_map_for_each_landmark_of_the_default_schema(metadata: dict[str, Any]) -> None:
    schema = LandmarkSchema.load("synthetic")
    output = metadata["network_data_format"]["outputs"]["pred"]
    assert output["num_channels"] == schema.count
    assert [output["channel_def"][str(index)] for index in range(schema.count)] == list(schema.landmarks)


def test_files_that_the_model_zoo_asks_for(bundle: Path) -> None:
    wanted = ["LICENSE", "docs/README.md", "docs/data_license.txt", "models/README.md", "configs/logging.conf"]
    wanted += ["configs/inference.yaml", "configs/train.yaml", "configs/evaluate.yaml", "configs/multi_gpu.yaml"]
    assert [name for name in wanted if not (bundle / name).is_file()] == []
    assert "Apache License" in (bundle / "LICENSE").read_text()
    assert (bundle / "LICENSE").read_text() == (bundle.parents[1] / "LICENSE").read_text()
    assert not list((bundle / "scripts").glob("*")), "code belongs into the package"
