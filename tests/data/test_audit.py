"""The audit counts what is there, and reports what is broken instead of stopping at it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_landmark.data.audit import audit_datalist, audit_folder
from monai_landmark.data.datalist import save_datalist
from monai_landmark.data.datasets import prepare_folder
from monai_landmark.data.datasets.split import Fractions
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import AnnotationError, ConfigurationError


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    coarse = np.random.default_rng(seed).uniform(0, 255, (9, 8)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good films (one of 16 bits, two alike), a broken and an empty one, and a text."""
    root = tmp_path / "films"
    (root / "sub").mkdir(parents=True)
    picture(0).save(root / "a.png")
    picture(0).save(root / "sub" / "copy.jpg", quality=95)
    deep = np.asarray(picture(1, (50, 20)), dtype=np.uint16) * 200
    Image.fromarray(deep).save(root / "deep.png")
    (root / "broken.png").write_bytes((root / "a.png").read_bytes()[:100])
    (root / "empty.dcm").write_bytes(b"")
    (root / "notes.txt").write_text("no film")
    return root


def test_folder_with_broken_films_gets_its_report(folder: Path) -> None:
    audit = audit_folder(folder)
    assert [film.film for film in audit.films] == ["a.png", "deep.png", "sub/copy.jpg"]
    assert audit.counts() == {
        "format": {"png": 2, "jpeg": 1},
        "size (rows x columns)": {"40 x 30": 2, "50 x 20": 1},
        "bits": {"8": 2, "16": 1},
        "spacing (row x column)": {"none": 3},
        "spacing source": {"none": 3},
    }
    assert {entry.film for entry in audit.bad} == {"broken.png", "empty.dcm"}
    assert all(entry.reason and entry.by == "fault" for entry in audit.bad)
    assert [(pair["first"], pair["second"]) for pair in audit.duplicates] == [("a.png", "sub/copy.jpg")]
    assert audit.other_files == 1


def test_json_is_complete_and_plain(folder: Path) -> None:
    content = json.loads(json.dumps(audit_folder(folder, spacing_mm=(0.2, 0.1)).to_json(), allow_nan=False))
    assert (content["film_count"], content["bad_count"], content["other_files"]) == (3, 2, 1)
    assert content["annotated_films"] is None
    assert content["films"][1] == {
        "film": "deep.png",
        "format": "png",
        "size": [50, 20],
        "bits": 16,
        "spacing_mm": [0.2, 0.1],
        "spacing_source": "user",
        "section": None,
        "annotated": None,
    }


def test_single_films(folder: Path) -> None:
    assert audit_folder(folder / "deep.png").films[0].size == (50, 20)
    broken = audit_folder(folder / "broken.png")
    assert broken.films == [] and [entry.film for entry in broken.bad] == ["broken.png"]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file or folder"):
        audit_folder(tmp_path / "no")
    assert audit_folder(tmp_path).to_json()["film_count"] == 0


def test_missing_and_occluded_landmarks_are_counted(folder: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks.csv"
    marks.write_text(
        "film,tip_x,tip_y,tip_visibility,base_x,base_y,base_visibility\n"
        "a.png,1,2,2,3,4,1\ndeep.png,1,2,2,,,0\nsub/copy.jpg,1,2,2,999,4,2\nlost.png,1,2,2,3,4,2\nbroken.png,1,2,2,3,4,2\n"
    )
    audit = audit_folder(folder, annotations=marks)
    assert audit.landmarks == {
        "tip": {"visible": 2, "occluded": 0, "missing": 0},
        "base": {"visible": 0, "occluded": 1, "missing": 1},
    }
    assert {film.film: film.annotated for film in audit.films} == {"a.png": 2, "deep.png": 1, "sub/copy.jpg": 0}
    assert {entry.film for entry in audit.bad} == {"broken.png", "empty.dcm", "lost.png", "sub/copy.jpg"}
    assert audit.to_json()["annotated_films"] == 2


def test_datalist(folder: Path, tmp_path: Path) -> None:
    (folder / "sub" / "copy.jpg").unlink()
    marks = tmp_path / "marks.csv"
    marks.write_text("film,tip_x,tip_y,base_x,base_y\na.png,1,2,,\ndeep.png,1,2,3,4\n")
    LandmarkSchema("two", "Two", ("tip", "base")).to_yaml(tmp_path / "two.yaml")
    datalist = prepare_folder(
        folder,
        annotations=marks,
        schema=str(tmp_path / "two.yaml"),
        spacing_mm=(0.2, 0.1),
        fractions=Fractions(0.5),
    )
    path = tmp_path / "datalist.json"
    save_datalist(datalist, path)
    audit = audit_datalist(path)
    assert audit.bad == [] and {entry.film for entry in audit.left_out} == {"broken.png", "empty.dcm"}
    assert audit.counts()["section"] == {"training": 1, "test": 1}
    assert audit.counts()["spacing (row x column)"] == {"0.2 x 0.1 mm": 2}
    assert audit.landmarks["base"] == {"visible": 1, "occluded": 0, "missing": 1}
    # a film that changed since, and one that is gone
    picture(7, (50, 20)).save(folder / "deep.png")
    (folder / "a.png").unlink()
    again = audit_datalist(path)
    assert again.films == [] and {entry.film for entry in again.bad} == {"a.png", "deep.png"}
    assert any("not the one that was prepared" in entry.reason for entry in again.bad)


def test_no_datalist(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(AnnotationError, match=r"x\.json"):
        audit_datalist(tmp_path / "x.json")


def test_real_dicom_films(shared_data: Path) -> None:
    audit = audit_folder(shared_data / "dicom")
    assert len(audit.films) == 6
    assert [entry.film for entry in audit.bad] == ["RG1_J2KI_chest_zero_spacing.dcm"]
    assert "PixelSpacing (0028,0030)" in audit.bad[0].reason
    assert [(p["first"], p["second"], p["identical"]) for p in audit.duplicates] == [
        ("RG2_J2KR_hip_0.2mm.dcm", "RG2_RLE_hip_0.2mm.dcm", True)
    ]
    bits = {film.film: film.bits for film in audit.films}
    assert bits["RG2_RLE_hip_0.2mm.dcm"] == 10
    assert "CompressedSamples" not in json.dumps(audit.to_json())
