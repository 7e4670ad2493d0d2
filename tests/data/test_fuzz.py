"""Damaged films, a few hundred of the hundred thousand of ``benchmarks/fuzz_films.py``, and the faults it has found."""

from __future__ import annotations

import gzip
import importlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_factory import make_film, ramp, write_film
from PIL import Image
from pydicom.encaps import encapsulate, get_frame

from monai_landmark.data.film import MAX_DECODED_BYTES, MAX_PIXELS, check_film_size
from monai_landmark.data.formats import read_film
from monai_landmark.errors import FilmError

_COUNT = 400


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("fuzz_films")  # the worker looks for it, too
    finally:
        sys.path.remove(folder)


def _bytes_of(**options) -> bytes:
    stream = io.BytesIO()
    make_film(**options).save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _refuse(path: Path, *parts: str) -> None:
    with pytest.raises(FilmError) as caught:
        read_film(path)
    for part in parts:
        assert part in str(caught.value)


def test_damaged_films_do_no_harm(tmp_path: Path, fuzz: ModuleType):
    entries = fuzz.run(_COUNT, 7, tmp_path, None)
    found = fuzz.summary(entries)
    harm = ("crashes", "hangs", "other_exceptions", "silent_spacing", "silent_polarity")
    assert [entry for entry in entries if entry["outcome"] not in ("same", "refused", "changed")] == []
    assert {name: found[name] for name in harm} == dict.fromkeys(harm, 0)
    assert found["mutants"] == _COUNT and found["peak_mb"] < fuzz.MEMORY_MB
    assert min(found["same"], found["refused"]) > _COUNT // 10  # else nothing was tried


def test_an_interrupted_run_goes_on(tmp_path: Path, fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch):
    asked = []

    class Pool:
        def __init__(self, *arguments: object) -> None: ...
        def judge(self, number: int) -> dict[str, object]:
            asked.append(number)
            return {"number": number, "outcome": "same"}

        def close(self) -> None: ...

    monkeypatch.setattr(fuzz, "Pool", Pool)
    fuzz.run(3, 0, tmp_path, None)
    with (tmp_path / "seed0.jsonl").open("a") as stream:
        stream.write('{"number": 3, "outc')
    assert [entry["number"] for entry in fuzz.run(5, 0, tmp_path, None)] == [0, 1, 2, 3, 4]
    assert asked == [0, 1, 2, 3, 4]


def test_harm_is_seen(fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The judge notices another spacing, polarity and exception."""
    corpus, sound = fuzz.sound_films(tmp_path, None)
    base = next(base for base in corpus if base.name == "explicit")

    def outcome(data: bytes) -> dict[str, object]:
        return fuzz.judge(data, base, sound["explicit"], False, tmp_path)

    assert outcome(base.data)["outcome"] == "same"
    assert outcome(base.data.replace(b"0.1\\0.1", b"0.2\\0.2"))["changes"] == ["spacing"]
    assert outcome(base.data.replace(b"MONOCHROME2", b"MONOCHROME1"))["changes"] == ["polarity"]
    monkeypatch.setattr(fuzz, "read_film", lambda path: 1 / 0)
    assert outcome(base.data)["type"] == "ZeroDivisionError"


# What the long runs have found, each as small as it could be made.


def test_length_that_swallows_the_spacing(tmp_path: Path):
    """A wrong length makes a parser skip attributes; without them the film would be read, in pixels."""
    data = _bytes_of(PatientComments="note", PixelSpacing=[0.2, 0.2])
    at = data.index(b"\x10\x00\x00\x40LT") + 6
    stop = data.index(b"\x28\x00\x00\x01US")  # behind the spacing
    path = tmp_path / "film.dcm"
    path.write_bytes(data[:at] + (stop - at - 2).to_bytes(2, "little") + data[at + 2 :])
    _refuse(path, "broken or cut short")


@pytest.mark.parametrize(
    "edit", [(b"\x28\x00\x30\x00DS", b"\x28\x00\x00\x00DS"), (b"\x28\x00\x30\x00DS", b"(\x000\x00D1")]
)
def test_damaged_tag(tmp_path: Path, edit: tuple[bytes, bytes]):
    path = tmp_path / "film.dcm"
    path.write_bytes(_bytes_of(PixelSpacing=[0.2, 0.2]).replace(*edit))
    _refuse(path)


def test_zeros_are_no_attributes(tmp_path: Path):
    """They would be read as attributes of group 0 and skipped, with the spacing among them."""
    data = _bytes_of(ImagerPixelSpacing=[0.2, 0.2], PixelSpacing=[0.1, 0.1], KVP="70.0")
    at, stop = data.index(b"\x18\x00\x60\x00DS"), data.index(b"\x28\x00\x02\x00US")
    stop -= (stop - at) % 8
    (tmp_path / "film.dcm").write_bytes(data[:at] + b"\0" * (stop - at) + data[stop:])
    _refuse(tmp_path / "film.dcm", "broken or cut short")


def test_rows_that_do_not_fit_the_pixels(tmp_path: Path):
    """One column less would move each row by one pixel more."""
    _refuse(write_film(tmp_path / "film.dcm", Columns=95), "another size")
    data = make_film().PixelData
    assert read_film(write_film(tmp_path / "padded.dcm", PixelData=data + b"\0" * 10)).size == (64, 96)


def test_panic_of_the_rle_decoder(tmp_path: Path):
    """It is no ``Exception``."""
    film = make_film(np.random.default_rng(0).integers(0, 4096, (64, 96), np.uint16), syntax="rle")
    frame = bytearray(get_frame(film.PixelData, 0, number_of_frames=1))
    frame[70:3000] = b"\x7f" * 2930
    film.PixelData = encapsulate([bytes(frame)])
    film.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    _refuse(tmp_path / "film.dcm", "cannot be decoded")


def test_pixel_size_that_nibabel_would_mend(tmp_path: Path):
    image = nibabel.Nifti1Image(ramp(40, 30).astype(np.int16), np.diag([0.2, 0.3, 1, 1]))
    for suffix, pack in ((".nii", bytes), (".nii.gz", gzip.compress)):
        data = bytearray(image.to_bytes())
        path = tmp_path / f"film{suffix}"
        path.write_bytes(pack(bytes(data)))
        assert read_film(path).spacing.mm == pytest.approx((0.3, 0.2))
        for broken in (0.0, -0.2):
            data[80:84] = np.float32(broken).tobytes()
            path.write_bytes(pack(bytes(data)))
            _refuse(path, "spacing is impossible")


@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
@pytest.mark.parametrize("packed", [False, True])
def test_pixels_that_do_not_fill_the_film(tmp_path: Path, suffix: str, packed: bool):
    """ITK gives zeros for what is missing, and leaves out what is too much."""
    path = tmp_path / f"film.{suffix}"
    image = sitk.GetImageFromArray(ramp(40, 30))
    image.SetSpacing((0.2, 0.3))
    sitk.WriteImage(image, str(path), packed)
    data = path.read_bytes()
    assert read_film(path).spacing.mm == pytest.approx((0.3, 0.2))
    for sides in (b"30 44", b"30 39", b"29 40"):
        path.write_bytes(data.replace(b"30 40", sides))
        _refuse(path, "broken or cut short")
    if suffix == "mha":
        for word in (b"Eleme\0tSpacing", b"ElementSpacong"):
            path.write_bytes(data.replace(b"ElementSpacing", word))
            _refuse(path, "header")
        path.write_bytes(data.replace(b"CenterOfRotation =", b"CenterOfRotation"))  # swallows the line behind it
        _refuse(path, "broken or cut short")
    path.write_bytes(data.replace(b"0.2", b"0.2" + b"0" * 20000))  # ITK's NRRD reader crashes
    _refuse(path, "header")


def test_decimal_strings_only(tmp_path: Path):
    for text in ("0.1_4\\0.1", "0.1\\0x1"):
        _refuse(write_film(tmp_path / "film.dcm", raw={"PixelSpacing": text}))


def test_sizes_beyond_belief(tmp_path: Path):
    check_film_size(6000, 7000, file="film", field="size", pixel_bytes=2, stored_bytes=10**6)
    for rows, columns, sizes in (
        (6000, MAX_PIXELS // 6000 + 1, {}),
        (6000, 7000, {"pixel_bytes": MAX_DECODED_BYTES // 42_000_000 + 1}),
        (6000, 7000, {"stored_bytes": 10**5}),
    ):
        with pytest.raises(FilmError, match="impossible"):
            check_film_size(rows, columns, file="film", field="size", **sizes)
    Image.fromarray(np.zeros((5000, 5000), np.uint8)).save(tmp_path / "bomb.png")
    _refuse(tmp_path / "bomb.png", "pixels a byte")
