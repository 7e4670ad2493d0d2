"""Copies that name no patient: nothing planted is found in them, and they are the same films."""

from __future__ import annotations

import io
import json
import logging
import stat
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import lut_item, make_film, ramp, write_film
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import generate_uid

from monai_landmark.apps.cli import main
from monai_landmark.data.burned_in import find_text
from monai_landmark.data.datalist import Datalist
from monai_landmark.data.formats import read_film
from monai_landmark.data.synthetic import synthesize_film
from monai_landmark.privacy import PhiFilter, mask_phi, pseudonym

# Names, dates, numbers and UIDs; each is planted once in an attribute or a file name.
NAMES = [f"Planted{word}^Jane{word}" for word in ("one", "two", "three", "four", "five", "six", "seven", "eight")]
DATES = [f"19{year}0{month}1{month}" for year, month in zip(range(31, 47), range(1, 9), strict=False)]
NUMBERS = [f"ACC{70301 + 17 * n}" for n in range(8)]
UIDS = [f"1.2.826.0.1.3680043.8.498.{10**12 + 7919 * n}" for n in range(8)]
WORDS = [f"Saint Planted Hospital {n}" for n in range(6)] + [f"Ward{n}Planted" for n in range(4)]
FILES = ["PLANTED_JACK_19280101", "PLANTED-JILL", "7717171", "planted john/1.2.840.99.71", "1927-05-05 Planted"]
PLANTS = NAMES + DATES + NUMBERS + UIDS + WORDS + ["PLANTED_JACK_19280101", "PLANTED-JILL", "7717171", "1.2.840.99.71"]
PLANTS += ["1927-05-05", "planted john", "note of Planted", "PLANTED MAKER"]


def planted_film(path: Path, number: int) -> Path:
    """A film with planted words in 12 attributes, a private one, a sequence, the preamble and the compressed image."""
    n = number
    film = make_film(
        ramp() + n, kind="DX", syntax="baseline" if n == 4 else "explicit", PixelSpacing=[0.2, 0.1], ViewPosition="AP"
    ) if n != 4 else make_film(ramp(bits=8).astype(np.uint8), kind="DX", PixelSpacing=[0.2, 0.1])  # fmt: skip
    film.PatientName, film.ReferringPhysicianName = NAMES[n], NAMES[(n + 5) % 8]
    film.PatientBirthDate, film.StudyDate = DATES[n], DATES[(n + 5) % 8]
    film.AccessionNumber, film.PatientID = NUMBERS[n], NUMBERS[(n + 5) % 8]
    film.StudyInstanceUID, film.SeriesInstanceUID = UIDS[n], UIDS[(n + 5) % 8]
    film.InstitutionName, film.PatientComments = WORDS[n], "note of Planted"
    film.BodyPartExamined, film.SeriesDescription = WORDS[6 + n % 4][:16].upper(), WORDS[6 + n % 4]
    request = Dataset()
    request.RequestedProcedureID = NUMBERS[(n + 5) % 8]
    request.RequestingPhysician = NAMES[n]
    film.RequestAttributesSequence = [request]
    film.private_block(0x0029, "PLANTED MAKER", create=True).add_new(1, "LO", NAMES[n])
    film.preamble = NAMES[n].encode().ljust(128, b"\0")
    item = lut_item(0, np.arange(4096) * 16, 16)
    item.LUTExplanation = WORDS[5]
    film.VOILUTSequence = [item]
    if n == 4:
        stream = io.BytesIO()
        Image.fromarray(ramp(bits=8).astype(np.uint8)).save(stream, "JPEG", quality=95, comment=WORDS[4])
        film.PixelData = encapsulate([stream.getvalue()])
        film.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
        film["PixelData"].VR, film["PixelData"].is_undefined_length = "OB", True
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID = generate_uid()
    path.parent.mkdir(parents=True, exist_ok=True)
    film.save_as(path, enforce_file_format=True)
    return path


def found(folder: Path) -> list[str]:
    """Planted words in any file below a folder, or in its name; patient names also as a file would write them."""
    hay = b"\0".join(
        str(path.relative_to(folder)).encode() + b"\0" + (path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    ).lower()
    return [word for word in PLANTS if word.lower().encode() in hay]


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five planted DICOM films and a planted PNG, with landmarks, as a clinic's folder."""
    folder = tmp_path_factory.mktemp("clinic")
    for number, name in enumerate(FILES):
        planted_film(folder / f"{name}.dcm", number)
    picture = Image.fromarray(ramp(bits=8).astype(np.uint8))
    from PIL.PngImagePlugin import PngInfo

    notes = PngInfo()
    notes.add_text("Description", WORDS[3])
    picture.save(folder / f"{WORDS[5]}.png", pnginfo=notes)
    rows = [f"{name}.dcm,{10 + n},{20 + n},30,40" for n, name in enumerate(FILES)]
    (folder / "points.csv").write_text("\n".join(["film,a_x,a_y,b_x,b_y", *rows]) + "\n")
    return folder


def test_the_plants_are_there(clinic: Path):
    assert len(PLANTS) >= 50 and found(clinic) == PLANTS


def test_folder(clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, key = tmp_path / "out", tmp_path / "key.csv"
    assert main(["deidentify", str(clinic), "--out", str(out), "--key", str(key)]) == 0
    capsys.readouterr()
    assert found(out) == []
    assert len(list(out.glob("*.dcm"))) == 5 and len(list(out.glob("*.png"))) == 1
    rows = dict(line.split(",", 1) for line in key.read_text().splitlines()[1:])
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    for new, old in rows.items():
        (copy,) = out.glob(f"{new}.*")
        first, second = read_film(clinic / old), read_film(copy)
        assert np.array_equal(first.pixels, second.pixels) and first.spacing == second.spacing
    positions = set()
    for file in out.glob("*.dcm"):
        copy = dcmread(file)
        assert copy.preamble == b"\0" * 128 and copy.PatientIdentityRemoved == "YES" and "BodyPartExamined" not in copy
        old = clinic / rows[str(copy.PatientID)]
        view = dcmread(old).get("ViewPosition") if old.suffix != ".png" else None
        assert copy.get("ViewPosition") == view
        positions.add(view)
    assert "AP" in positions


def test_datalist(clinic: Path, tmp_path: Path):
    datalist, out = tmp_path / "local" / "datalist.json", tmp_path / "out"
    words = ["prepare", "folder", str(clinic), "--annotations", str(clinic / "points.csv"), "--out", str(datalist)]
    assert main([*words, "--duplicates", "mark"]) in (0, 3)
    local = Datalist.load(datalist)
    assert found(datalist.parent) != []
    assert main(["deidentify", str(datalist), "--out", str(out)]) == 0
    assert found(out) == []
    shared = Datalist.load(out / "datalist.json")
    assert [len(items) for items in shared.sections.values()] == [len(items) for items in local.sections.values()]
    for (_, old), (_, new) in zip(local.items(), shared.items(), strict=True):
        assert old.get("landmarks") == new.get("landmarks") and old["size"] == new["size"]
        assert old["patient"] != new["patient"] and (out / new["image"]).is_file()


def test_same_salt_same_ids(clinic: Path, tmp_path: Path):
    film, salt = str(clinic / "PLANTED-JILL.dcm"), ["--salt", str(tmp_path / "salt")]
    for name in ("one", "two"):
        assert main(["deidentify", film, "--out", str(tmp_path / name), *salt]) == 0
    assert main(["deidentify", film, "--out", str(tmp_path / "three")]) == 0
    names = [next((tmp_path / name).iterdir()).name for name in ("one", "two", "three")]
    assert names[0] == names[1] != names[2]
    uids = [dcmread(next((tmp_path / name).iterdir())).SOPInstanceUID for name in ("one", "two", "three")]
    assert uids[0] == uids[1] != uids[2]


@pytest.mark.parametrize(
    "options", [{"syntax": "big"}, {"PhotometricInterpretation": "MONOCHROME1"}, {"syntax": "j2k"}]
)
def test_the_same_film_in_every_kind(options: dict[str, str], tmp_path: Path):
    tags = {"RescaleSlope": "2", "RescaleIntercept": "-5", "PixelPaddingValue": 0, "ImagerPixelSpacing": [0.2, 0.1]}
    if "syntax" not in options:
        tags["VOILUTSequence"] = [lut_item(0, np.arange(8192), 16)]
    film = write_film(tmp_path / "a.dcm", **tags, **options)
    assert main(["deidentify", str(film), "--out", str(tmp_path / "out")]) == 0
    copy = read_film(next((tmp_path / "out").iterdir()))
    assert np.array_equal(copy.pixels, read_film(film).pixels) and copy.spacing.source == "detector"


def test_refusals(clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    film = str(clinic / "PLANTED-JILL.dcm")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    assert main(["deidentify", film, "--out", str(tmp_path / "full")]) == 1
    assert main(["deidentify", film, "--out", str(tmp_path / "o"), "--key", str(tmp_path / "o" / "key.csv")]) == 1
    (tmp_path / "short").write_text("1234")
    assert main(["deidentify", film, "--out", str(tmp_path / "o"), "--salt", str(tmp_path / "short")]) == 1
    assert "secret is too short" in capsys.readouterr().err
    broken = tmp_path / "broken.dcm"
    broken.write_bytes((clinic / "PLANTED-JILL.dcm").read_bytes()[:2000])
    assert main(["deidentify", str(broken), "--out", str(tmp_path / "p")]) == 3


def _written(size: int, level: int) -> np.ndarray:
    film = synthesize_film(3, size=(300, 260)).pixels.astype(np.float64)
    picture = Image.fromarray(np.rint(255 * (film - film.min()) / np.ptp(film)).astype(np.uint8))
    ImageDraw.Draw(picture).text((20, 30), "DOE JANE 1963", fill=level, font=ImageFont.load_default(size))
    return np.asarray(picture)


def test_burned_in_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert find_text(synthesize_film(3, size=(300, 260)).pixels) == []
    for size in (14, 24):
        (line, *_) = find_text(_written(size, 255))
        assert 20 < line.box[0] < 60 and line.letters >= 6
    assert find_text(np.zeros((50, 50))) == []
    Image.fromarray(_written(20, 255)).save(tmp_path / "film.png")
    assert main(["deidentify", str(tmp_path / "film.png"), "--out", str(tmp_path / "out")]) == 3
    assert "hold text" in capsys.readouterr().out


def test_words_are_masked():
    text = mask_phi(
        "cannot read /data/Doe Jane/DOE_JANE.dcm: Doe^Jane born 19630412, seen 2020-02-29 and 12.04.1963, ACC1234567, "
        "study 1.2.840.113619.2.55.3, step 100 of 20000: loss 0.123456789, 1.5e-07, version 1.6.1, 12:30:01"
    )
    for word in ("DOE_JANE", "Doe^Jane", "19630412", "2020-02-29", "12.04.1963", "1234567,", "113619"):
        assert word not in text
    assert text.endswith("step 100 of 20000: loss 0.123456789, 1.5e-07, version 1.6.1, 12:30:01")
    assert pseudonym("a", "salt") == pseudonym("a", "salt") != pseudonym("a", "pepper")


def test_filter():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(PhiFilter())
    logger = logging.getLogger("test_filter")
    logger.addHandler(handler)
    try:
        raise ValueError("bad value of Doe^Jane")
    except ValueError:
        logger.exception("film %s of %s", "DOE.dcm", "19630412")
    logged = stream.getvalue()
    assert "ValueError: bad value of [name " in logged and "film [film " in logged
    assert not any(word in logged for word in ("DOE", "Doe", "19630412"))
    json.dumps(logged)


def test_commands_tell_no_attribute(
    clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    """Names of files are shown to the person at the desk; what the films' attributes hold is shown to nobody."""
    broken = tmp_path / "films" / "broken.dcm"
    for number in range(5):
        planted_film(tmp_path / "films" / f"{number}.dcm", number)
    broken.write_bytes((clinic / "PLANTED-JILL.dcm").read_bytes()[:3000])
    datalist = tmp_path / "datalist.json"
    with caplog.at_level(logging.DEBUG):
        assert main(["inspect", str(broken.parent), "--json", str(tmp_path / "found.json")]) == 3
        assert main(["prepare", "folder", str(broken.parent), "--out", str(datalist), "--duplicates", "mark"]) == 3
        assert main(["leaks", str(datalist), str(broken.parent)]) == 3
        assert main(["deidentify", str(broken.parent), "--out", str(tmp_path / "out")]) == 3
    said = "".join(capsys.readouterr()) + caplog.text + (tmp_path / "found.json").read_text() + datalist.read_text()
    assert [word for word in PLANTS if word.lower() in said.lower()] == []
    assert len(list((tmp_path / "out").iterdir())) == 5
