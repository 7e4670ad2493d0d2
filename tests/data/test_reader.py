"""``RadiographReader`` inside MONAI: shape, affine, meta, refusals, and nothing of the stock readers in between."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from dicom_factory import ramp, write_film
from monai.bundle import ConfigParser
from monai.data import ImageReader, MetaTensor, list_data_collate
from monai.transforms import Compose, LoadImage, LoadImaged
from monai.transforms.io import array as monai_io
from PIL import Image

from monai_landmark.data.geometry import film_affine
from monai_landmark.data.reader import FILM_SUFFIXES, RadiographReader, is_film, read_film
from monai_landmark.errors import FilmError

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodec")
SPACING = [0.3, 0.2]


def _cause(error: BaseException) -> BaseException:
    """The first error of a chain; MONAI wraps what a transform raises."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@pytest.fixture
def film_path(tmp_path: Path) -> Path:
    return write_film(tmp_path / "film.dcm", ramp(), bits_stored=12, kind="DX", PixelSpacing=SPACING)


def test_load_image(film_path: Path):
    image = LoadImage(reader=RadiographReader(), ensure_channel_first=True)(film_path)
    assert isinstance(image, MetaTensor) and image.dtype == torch.float32
    assert image.shape == (1, 64, 96)
    assert np.array_equal(image[0].numpy(), ramp())
    assert image.affine.shape == (3, 3) and np.allclose(image.affine, film_affine((0.3, 0.2)))
    assert np.allclose(image.meta["spacing_mm"], SPACING) and image.meta["spacing_source"] == "uncalibrated"
    assert tuple(image.meta["original_size"]) == (64, 96)
    assert image.meta["filename_or_obj"] == str(film_path)
    # (row 10, column 30) lies at x = 30 * 0.2 mm, y = 10 * 0.3 mm
    assert np.allclose(image.affine.numpy() @ [10, 30, 1], [6, 3, 1])


def test_load_imaged_without_spacing(tmp_path: Path):
    Image.fromarray(ramp(bits=16)).save(tmp_path / "film.png")
    image = LoadImaged("image", reader=RadiographReader(), ensure_channel_first=True)({"image": tmp_path / "film.png"})[
        "image"
    ]
    assert np.array_equal(image[0].numpy(), ramp(bits=16))
    assert np.isnan(image.meta["spacing_mm"]).all() and image.meta["spacing_source"] == "none"
    assert np.allclose(image.affine, film_affine(None))


def test_options(film_path: Path, tmp_path: Path):
    image = LoadImage(reader=RadiographReader(spacing_mm=(0.1, 0.15)), ensure_channel_first=True)(film_path)
    assert np.allclose(image.affine, film_affine((0.1, 0.15))) and image.meta["spacing_source"] == "user"
    windowed = write_film(tmp_path / "windowed.dcm", ramp(), bits_stored=12, WindowCenter=1000, WindowWidth=10)
    plain = LoadImage(reader=RadiographReader(apply_voi=False), ensure_channel_first=True)(windowed)
    assert np.array_equal(plain[0].numpy(), ramp())
    shown = LoadImage(reader=RadiographReader(), ensure_channel_first=True)(windowed)
    assert not np.array_equal(shown[0].numpy(), ramp())


def test_by_name_and_in_yaml(film_path: Path):
    name = "monai_landmark.data.reader.RadiographReader"
    by_name = LoadImage(reader=name, ensure_channel_first=True, spacing_mm=(0.1, 0.1))(film_path)
    assert by_name.meta["spacing_source"] == "user"
    config = {
        "reader": {"_target_": name, "spacing_mm": [0.1, 0.1], "apply_voi": False},
        "load": {"_target_": "LoadImaged", "keys": "image", "reader": "@reader", "ensure_channel_first": True},
    }
    loaded = ConfigParser(config).get_parsed_content("load")({"image": film_path})["image"]
    assert loaded.meta["spacing_source"] == "user" and loaded.shape == (1, 64, 96)


def test_meta_collates(film_path: Path, tmp_path: Path):
    Image.fromarray(ramp(bits=8).astype(np.uint8)).save(tmp_path / "film.png")
    load = LoadImaged("image", reader=RadiographReader(), ensure_channel_first=True)
    batch = list_data_collate([load({"image": film_path}), load({"image": tmp_path / "film.png"})])["image"]
    assert batch.shape == (2, 1, 64, 96)
    assert batch.meta["spacing_mm"].shape == (2, 2) and batch.meta["spacing_source"] == ["uncalibrated", "none"]
    assert batch.meta["original_size"].tolist() == [[64, 96], [64, 96]]
    assert batch.affine.shape == (2, 3, 3)


def test_no_patient_data_in_meta(tmp_path: Path):
    planted = {
        "PatientName": "Planted^Name",
        "PatientID": "PLANTED",
        "InstitutionName": "Planted",
        "StudyID": "PLANTED",
    }
    path = write_film(tmp_path / "film.dcm", ramp(), PixelSpacing=SPACING, **planted)
    image = LoadImage(reader=RadiographReader(), ensure_channel_first=True)(path)
    assert "planted" not in repr(image.meta).lower()
    assert set(image.meta) == {
        *("affine", "original_affine", "spatial_shape", "original_channel_dim", "filename_or_obj"),
        *("spacing_mm", "spacing_source", "original_size"),
    }
    assert not any(value is None for value in image.meta.values())


def test_refusal_is_not_passed_on_to_the_stock_readers(tmp_path: Path):
    """PydicomReader would load this film with 1.0 mm."""
    path = write_film(tmp_path / "film.dcm", ramp(), raw={"PixelSpacing": "0\\0"})
    with pytest.raises(FilmError, match=r"PixelSpacing \(0028,0030\)"):
        LoadImage(reader=RadiographReader(), ensure_channel_first=True)(path)
    with pytest.raises(RuntimeError) as caught:
        Compose([LoadImaged("image", reader=RadiographReader())])({"image": path})
    assert isinstance(_cause(caught.value), FilmError)


def test_several_files_are_refused(film_path: Path):
    with pytest.raises(FilmError, match="one path"):
        LoadImage(reader=RadiographReader())([film_path, film_path])


def test_is_film(tmp_path: Path, film_path: Path):
    assert is_film(film_path) and is_film(str(film_path))
    for name in ("1.2.840.113619.2", "IM000001", "film.ima"):
        assert is_film(write_film(tmp_path / name, ramp()))
        assert np.array_equal(read_film(tmp_path / name).pixels, ramp())
    for suffix in FILM_SUFFIXES:
        (tmp_path / f"empty{suffix.upper()}").touch()
        assert is_film(tmp_path / f"empty{suffix.upper()}")  # broken, and to be reported
    for name in ("notes.txt", ".DS_Store", "._film.dcm", "labels.json", "README"):
        (tmp_path / name).write_text("x" * 200)
        assert not is_film(tmp_path / name)
    assert not is_film(tmp_path) and not is_film(tmp_path / "absent.dcm")
    film_path.rename(tmp_path / "DICOMDIR")
    assert not is_film(tmp_path / "DICOMDIR")


def test_verify_suffix(film_path: Path, tmp_path: Path):
    reader = RadiographReader()
    bare = write_film(tmp_path / "IM000001", ramp())
    (tmp_path / "notes.txt").write_text("none")
    assert (
        reader.verify_suffix(film_path) and reader.verify_suffix([film_path, bare]) and reader.verify_suffix(str(bare))
    )
    assert not reader.verify_suffix([film_path, tmp_path / "notes.txt"])


@pytest.mark.parametrize("content", [b"", b"P5\n", b"hello world" * 100, b"\x1f\x8b\x08\x00" * 20, b"BM", b"\0" * 4000])
def test_unknown_content(tmp_path: Path, content: bytes):
    (tmp_path / "film.png").write_bytes(content)
    with pytest.raises(FilmError, match=r"film\.png.*what to do"):
        read_film(tmp_path / "film.png")


class _Poison(ImageReader):
    """Stands for ITKReader: takes everything and gives something else."""

    calls = 0

    def verify_suffix(self, filename):
        return True

    def read(self, data, **kwargs):
        type(self).calls += 1
        return data

    def get_data(self, img):
        return np.zeros((3, 3), np.float32), {}


def test_itk_reader_is_never_asked(film_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in list(monai_io.SUPPORTED_READERS):
        monkeypatch.setitem(monai_io.SUPPORTED_READERS, name, _Poison)
    load = LoadImaged("image", reader=RadiographReader(), ensure_channel_first=True)
    assert np.array_equal(load({"image": film_path})["image"][0].numpy(), ramp())
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(film_path.read_bytes()[:400])
    with pytest.raises(FilmError):
        load({"image": broken})
    assert _Poison.calls == 0


def test_same_answer_with_and_without_itk(film_path: Path, tmp_path: Path):
    """A package called itk that fails at every use is put before all others."""
    fake = tmp_path / "fake" / "itk"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text(
        "__version__ = '5.4.7'\n"
        "def __getattr__(name):\n"
        "    if name.startswith('__'):\n"
        "        raise AttributeError(name)\n"
        "    raise SystemExit('itk was used: ' + name)\n"
    )
    Image.fromarray(ramp(bits=8).astype(np.uint8)).save(tmp_path / "film.png")
    program = f"""
        import sys
        from monai.transforms import LoadImaged
        from monai_landmark.data.reader import RadiographReader
        load = LoadImaged("image", reader=RadiographReader(), ensure_channel_first=True)
        for path in sys.argv[1:]:
            image = load({{"image": path}})["image"]
            print(image.numpy().tobytes().hex(), image.affine.tolist(), image.meta["spacing_source"])
        assert sys.modules["itk"].__file__.startswith({str(tmp_path)!r})
    """
    paths = [str(film_path), str(tmp_path / "film.png")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(fake.parent), *sys.path])}
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), *paths]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    load = LoadImaged("image", reader=RadiographReader(), ensure_channel_first=True)
    images = [load({"image": path})["image"] for path in paths]
    expected = [f"{i.numpy().tobytes().hex()} {i.affine.tolist()} {i.meta['spacing_source']}" for i in images]
    assert [line for line in done.stdout.splitlines() if "calibrated" in line or "none" in line] == expected
