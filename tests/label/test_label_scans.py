"""Scans and label volumes of the label server, without the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from monai_landmark.data.scan_reader import read_scan
from monai_landmark.data.synthetic_bodies import synthetic_body
from monai_landmark.engines import save_model
from monai_landmark.errors import ConfigurationError, ScanError
from monai_landmark.label.checks import RequestError, answer
from monai_landmark.label.scan_service import ScanService, label_of
from monai_landmark.label.server import write_app
from monai_landmark.label.service import LabelSettings
from monai_landmark.networks import landmark_network
from monai_landmark.results.label_files import write_label_nifti

NUMBERS = {"liver": 1, "spleen": 2}
CARD = {"architecture": "diffusion-tiny", "organs": list(NUMBERS), "spatial_size": [32, 32]}
BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "ct_organs"
BODY = synthetic_body(0, (24, 20, 6))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A scan whose first axis runs the other way."""
    return save(tmp_path / "scan.nii.gz", BODY.hounsfield)


def save(path: Path, voxels: Any, affine: Any = BODY.affine) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(landmark_network(3, "diffusion-tiny"), folder, {**CARD, "darkest_hu": -160, "brightest_hu": 240})
    return folder


def volume(**voxels: int) -> Any:
    labels = np.zeros(BODY.labels.shape, dtype=np.uint8)
    for row, number in enumerate(voxels.values()):
        labels[row, 2, 3] = number
    return labels


# ---- what is served
def test_the_models_card_says_which_app_is_served(model: Path, tmp_path: Path) -> None:
    assert "class CtOrgans(OrganApp, " in (write_app(tmp_path / "a", model) / "main.py").read_text()
    for other in (None, tmp_path):
        assert "class XrayLandmarks(LandmarkApp, " in (write_app(tmp_path / "b", other) / "main.py").read_text()


def test_without_a_model_of_organs_there_is_no_server(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="which organs"):
        ScanService(LabelSettings(tmp_path))


# ---- labels
def test_a_label_comes_back_on_the_scans_grid(image: Path, tmp_path: Path) -> None:
    sent = save(tmp_path / "sent.nii.gz", volume(liver=1, spleen=2))
    found = label_of(sent, read_scan(image), NUMBERS)
    kept = nibabel.load(write_label_nifti(found, tmp_path / "kept.nii.gz"))
    np.testing.assert_array_equal(kept.dataobj, volume(liver=1, spleen=2))
    np.testing.assert_allclose(kept.affine, nibabel.load(image).affine)


def test_segments_are_told_by_name_and_not_by_their_order(image: Path, tmp_path: Path) -> None:
    """3D Slicer numbers the segments anew where one was removed or added."""
    sent = save(tmp_path / "sent.nii.gz", volume(spleen=1, liver=7))
    told = [{"name": "spleen", "idx": 1}, {"name": "liver", "idx": 7}]
    found = label_of(sent, read_scan(image), NUMBERS, told)
    np.testing.assert_array_equal(found.labels, volume(spleen=2, liver=1))


@pytest.mark.parametrize(
    ("voxels", "told", "says"),
    [
        (volume(liver=1, other=3), None, "a number is of no organ"),
        (volume(liver=1), [{"name": "liver", "idx": 2}], "a number is of no organ"),
        (volume(liver=1), [{"name": "Doe^Jane", "idx": 1}], "a segment is no organ"),
        (volume(liver=1), [{"name": "liver"}], "not what labels are called"),
        (volume(liver=1), "liver", "not what labels are called"),
        (volume(), None, "no organ is labeled"),
        (volume(liver=1)[:-1], None, "do not lie on their scan"),
        (volume(liver=1) * 0.5, None, "not whole numbers"),
    ],
)
def test_what_is_no_label_is_refused(voxels: Any, told: Any, says: str, image: Path, tmp_path: Path) -> None:
    sent = save(tmp_path / "sent.nii.gz", voxels)
    with pytest.raises(RequestError, match=says) as error:
        label_of(sent, read_scan(image), NUMBERS, told)
    status, sentence = answer(error.value)
    assert status == 400 and str(tmp_path) not in sentence and "Doe" not in sentence


def test_a_label_elsewhere_or_in_another_form_is_refused(image: Path, tmp_path: Path) -> None:
    elsewhere = save(tmp_path / "sent.nii.gz", volume(liver=1), np.diag([1.0, 1, 1, 1]))
    (tmp_path / "sent.txt").write_text("liver")
    for sent in (elsewhere, tmp_path / "sent.txt"):
        with pytest.raises(RequestError):
            label_of(sent, read_scan(image), NUMBERS)


# ---- service
def test_segments_a_scan_on_its_own_grid(model: Path, image: Path, tmp_path: Path) -> None:
    service = ScanService(LabelSettings(model, bundle=BUNDLE, device="cpu"))
    facts = service.segment(image, tmp_path / "out")
    found = nibabel.load(tmp_path / "out" / "scan.nii.gz")
    assert found.shape == BODY.labels.shape and set(np.unique(found.dataobj)) <= {0, 1, 2}
    np.testing.assert_allclose(found.affine, BODY.affine)
    assert list(facts["volumes_ml"]) == list(NUMBERS) and facts["model"]["sha256"] == service.model_sha256()
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(image.read_bytes()[:200])
    with pytest.raises(ScanError, match="broken"):
        service.segment(broken, tmp_path / "out")


def test_settings_of_a_training_are_limited(model: Path, tmp_path: Path) -> None:
    service = ScanService(LabelSettings(model, bundle=BUNDLE))
    service.check_training({"max_epochs": 3, "label_budget": "4 slices", "start": ["current"]})
    wrong = [{"max_epochs": 0}, {"label_budget": "$exit()"}, {"label_budget": [4]}, {"start": "pretrained"}]
    for asked in wrong:
        with pytest.raises(RequestError):
            service.check_training(asked)
    with pytest.raises(RequestError, match="no scan has a label"):
        service.train([], {}, print)
    assert not (model / "rounds").exists()
    keys = service._train_keys({"seed": 4})
    assert keys["initialization"] == str(model / "model.safetensors") and keys["spatial_size"] == [32, 32]


def test_a_network_that_only_starts_from_random_weights_does_so(tmp_path: Path) -> None:
    save_model(landmark_network(3, "monai-segresnet"), tmp_path, {**CARD, "architecture": "monai-segresnet"})
    keys = ScanService(LabelSettings(tmp_path, bundle=BUNDLE))._train_keys({})
    assert "initialization" not in keys and keys["architecture"] == "monai-segresnet"
