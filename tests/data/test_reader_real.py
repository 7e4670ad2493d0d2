"""Real films, kept outside the project: each reads as its index says, or is refused for a stated reason."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from monai_landmark.data.reader import read_film
from monai_landmark.errors import FilmError

# what the policy must make of each film, written by hand from its tags
EXPECTED = {
    "RG1_J2KI_chest_zero_spacing.dcm": None,
    "RG2_RLE_hip_0.2mm.dcm": ("uncalibrated", (0.2, 0.2)),
    "RG2_J2KR_hip_0.2mm.dcm": ("uncalibrated", (0.2, 0.2)),
    "RG3_J2KR_extremity_no_spacing.dcm": ("none", None),
    "CR-ModalitySequenceLUT_panoramic_0.15mm.dcm": ("detector", (0.15, 0.15)),
    "MG_OutOfBoundsOverlay_imagerpixelspacing_only.dcm": ("magnification-corrected", (0.085 / 1.0433707,) * 2),
    "CR_chest_0.168mm.dcm": ("uncalibrated", (0.168, 0.168)),
}


def _rows(root: Path) -> list[dict[str, str]]:
    with (root / "dicom" / "index.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_films_of_the_index(shared_data: Path):
    rows = _rows(shared_data)
    assert {row["file"] for row in rows} == set(EXPECTED)
    for row in rows:
        path, expected = shared_data / "dicom" / row["file"], EXPECTED[row["file"]]
        if expected is None:
            with pytest.raises(FilmError, match=r"PixelSpacing \(0028,0030\).*0\.000"):
                read_film(path)
            film = read_film(path, (0.1, 0.1))
        else:
            film = read_film(path)
            assert (film.spacing.source, film.spacing.mm and pytest.approx(film.spacing.mm, rel=1e-3)) == expected
        assert film.size == (int(row["rows"]), int(row["cols"]))
        assert film.info["bits_stored"] == int(row["bits_stored"])
        assert film.info["photometric"] == row["photometric"]
        assert film.info["inverted"] is (row["photometric"] == "MONOCHROME1")
        assert np.isfinite(film.pixels).all() and np.ptp(film.pixels) > 100


def test_polarity_of_inverted_films(shared_data: Path):
    """Stored values of a MONOCHROME1 film fall where its shown values rise."""
    for row in _rows(shared_data):
        if row["has_modality_lut_seq"] == "True":
            continue
        path = shared_data / "dicom" / row["file"]
        film = read_film(path, (0.1, 0.1), apply_voi=False)
        stored = dcmread(path).pixel_array.astype(np.float64)
        correlation = np.corrcoef(stored.ravel()[::97], film.pixels.ravel()[::97])[0, 1]
        assert correlation == pytest.approx(-1 if row["photometric"] == "MONOCHROME1" else 1, abs=1e-4)


def test_same_film_in_two_compressions(shared_data: Path):
    films = [read_film(shared_data / "dicom" / f"RG2_{name}_hip_0.2mm.dcm") for name in ("RLE", "J2KR")]
    assert np.array_equal(films[0].pixels, films[1].pixels)


def test_rgb_pelvis(shared_data: Path):
    paths = sorted((shared_data / "pelvis" / "dicom").glob("*.dcm"))
    assert paths
    for path in paths:
        film = read_film(path)
        assert film.size == (331, 331) and film.info["photometric"] == "RGB"


@pytest.mark.parametrize("folder", ["hand/images", "chest/images", "isbi2015"])
def test_pictures(shared_data: Path, folder: str):
    paths = sorted(path for path in (shared_data / folder).rglob("*") if path.suffix in (".png", ".jpg"))
    assert paths
    for path in paths[:: max(1, len(paths) // 20)]:
        film = read_film(path)
        assert film.spacing.source == "none" and min(film.size) > 100


def test_no_name_in_any_film(shared_data: Path):
    for path in (shared_data / "dicom").glob("*.dcm"):
        names = str(dcmread(path, stop_before_pixels=True).get("PatientName", "")).strip()
        film = read_film(path, (0.1, 0.1))
        assert not names or names not in json.dumps(film.info)
