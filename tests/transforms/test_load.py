"""Films of a datalist: each with the spacing it should have, landmarks in mm."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
import torch
from PIL import Image

from monai_landmark.data.reader import read_film
from monai_landmark.errors import FilmError
from monai_landmark.transforms import LoadRadiographd

ROW_MM, COL_MM = 0.2, 0.3


@pytest.fixture
def volume(tmp_path):
    """A film whose file states its spacing."""
    image = SimpleITK.GetImageFromArray(np.arange(12 * 20, dtype=np.int16).reshape(12, 20))
    image.SetSpacing((COL_MM, ROW_MM))
    SimpleITK.WriteImage(image, str(tmp_path / "film.mha"))
    return str(tmp_path / "film.mha")


@pytest.fixture
def photograph(tmp_path):
    """A film whose file knows no spacing."""
    Image.fromarray(np.arange(12 * 20, dtype=np.uint8).reshape(12, 20)).save(tmp_path / "film.png")
    return str(tmp_path / "film.png")


def test_pixels_become_mm_by_the_files_own_spacing(volume):
    item = {"image": volume, "landmarks": [[10.0, 5.0], None, [float("nan")] * 2], "id": "a"}
    loaded = LoadRadiographd()(item)
    assert loaded["image"].shape == (1, 12, 20) and loaded["image"].dtype == torch.float32
    assert loaded["landmarks"].dtype == torch.float64
    np.testing.assert_allclose(loaded["landmarks"], [[3.0, 1.0], [np.nan] * 2, [np.nan] * 2], atol=1e-9)
    assert loaded["image"].meta["spacing_source"] == read_film(volume).spacing.source != "none"
    assert item["image"] == volume and item["landmarks"][1] is None


@pytest.mark.parametrize("source", [{"spacing_source": "user"}, {}])
def test_the_users_spacing_overrules_the_file(volume, source):
    loaded = LoadRadiographd()({"image": volume, "landmarks": [[10.0, 5.0]], "spacing": [0.5, 0.4], **source})
    np.testing.assert_allclose(loaded["landmarks"], [[4.0, 2.5]])
    assert loaded["image"].meta["spacing_source"] == "user"
    assert "spacing" not in loaded


@pytest.mark.parametrize("source", ["calibrated", "detector", "uncalibrated", "none"])
def test_any_other_source_is_read_from_the_file_again(volume, source):
    item = {"image": volume, "landmarks": [[10.0, 5.0]], "spacing": [0.5, 0.4], "spacing_source": source}
    loaded = LoadRadiographd()(item)
    np.testing.assert_allclose(loaded["landmarks"], [[3.0, 1.0]])
    assert loaded["image"].meta["spacing_source"] == read_film(volume).spacing.source


@pytest.mark.parametrize("spacing", [{}, {"spacing": None}, {"spacing": None, "spacing_source": "none"}])
def test_without_spacing_the_unit_is_the_pixel(photograph, spacing):
    loaded = LoadRadiographd()({"image": photograph, "landmarks": [[10.5, 5.0]], **spacing})
    assert loaded["landmarks"].tolist() == [[10.5, 5.0]]
    assert loaded["image"].meta["spacing_source"] == "none"
    assert np.isnan(np.asarray(loaded["image"].meta["spacing_mm"])).all()


def test_a_film_without_landmarks(photograph):
    assert LoadRadiographd()({"image": photograph, "id": "a"}).keys() == {"image", "id"}


def test_two_films_of_one_item_convert_its_landmarks_once(volume, photograph):
    loaded = LoadRadiographd(("image", "mask"))({"image": volume, "mask": photograph, "landmarks": [[10.0, 5.0]]})
    np.testing.assert_allclose(loaded["landmarks"], [[3.0, 1.0]])
    assert loaded["mask"].shape == (1, 12, 20)


@pytest.mark.parametrize("spacing", [[0.0, 0.1], [float("nan"), 0.1], [0.1], [0.1, 0.1, 0.1], [30.0, 0.1]])
def test_an_impossible_spacing_is_refused(photograph, spacing):
    with pytest.raises(FilmError) as caught:
        LoadRadiographd()({"image": photograph, "spacing": spacing, "spacing_source": "user"})
    assert "spacing" in str(caught.value)


def test_missing_keys(photograph):
    with pytest.raises(KeyError):
        LoadRadiographd("film")({"image": photograph})
    item = {"image": photograph, "landmarks": [[1.0, 2.0]]}
    assert LoadRadiographd("film", allow_missing_keys=True)(item)["landmarks"] == [[1.0, 2.0]]
