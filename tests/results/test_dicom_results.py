"""Structured reports and presentation states: valid by other people's tools, and the points where they belong."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.data.synthetic import synthesize_film
from monai_landmark.errors import ConfigurationError, DataError, FilmError
from monai_landmark.results import LandmarkResult
from monai_landmark.results.dicom_film import read_dicom_film
from monai_landmark.results.measurements import measure_result
from monai_landmark.results.presentation_state import write_presentation_state
from monai_landmark.results.result import Guarantee
from monai_landmark.results.structured_report import read_structured_report, write_structured_report
from monai_landmark.results.writers import write_dicom_files

hd = pytest.importorskip("highdicom", reason="highdicom is not installed (extra: sr)")

SCHEMA = LandmarkSchema.load("synthetic")
FILM = synthesize_film(1, (200, 216))
UIDS = {"StudyInstanceUID": "1.2.3.4", "SeriesInstanceUID": "1.2.3.4.5", "SOPInstanceUID": "1.2.3.4.5.6"}
PATIENT = {"PatientName": "Müller^Ännchen", "PatientID": "P1", "PatientBirthDate": "19610203", "PatientSex": "F"}


def write_film(path: Path, **tags: Any) -> Path:
    """A DX film with an identity; None leaves a tag out."""
    film = Dataset()
    film.SpecificCharacterSet = "ISO_IR 100"
    film.SOPClassUID, film.Modality = DigitalXRayImageStorageForPresentation, "DX"
    film.Rows, film.Columns = FILM.pixels.shape
    film.SamplesPerPixel, film.PixelRepresentation, film.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    film.BitsAllocated = film.BitsStored = 16
    film.HighBit, film.PixelData = 15, FILM.pixels.astype("<u2").tobytes()
    film["PixelData"].VR = "OW"
    film.PixelSpacing = list(FILM.spacing_mm)
    for keyword, value in (UIDS | PATIENT | {"StudyID": "S1", "AccessionNumber": "A1"} | tags).items():
        if value is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                setattr(film, keyword, value)
    film.ensure_file_meta()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID
    film.save_as(path, enforce_file_format=True)
    return path


def predicted(**changes: Any) -> LandmarkResult:
    points = np.array(FILM.landmarks_px)
    points[2] = np.nan
    points[5] = [-3.0, 20.0]
    fields: dict[str, Any] = {
        "film": "film",
        "original_size": FILM.pixels.shape,
        "names": SCHEMA.landmarks,
        "points_px": points,
        "spacing_mm": FILM.spacing_mm,
        "spacing_source": "calibrated",
        "expected_error_mm": np.linspace(0.5, 2, SCHEMA.count),
        "schema": "synthetic",
        "model_name": "net",
        "model_sha256": "ab" * 32,
    }
    return LandmarkResult(**fields | changes)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.dcm")


@pytest.fixture(scope="module")
def report(film: Path) -> Path:
    return write_structured_report(predicted(), SCHEMA, film, film.with_name("film.sr.dcm"))


def checked(tool: str, path: Path) -> list[str]:
    """Lines in which a tool finds an error; skips where it is not installed."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (Debian: dicom3tools, dcmtk)")
    done = subprocess.run([tool, str(path)], capture_output=True, text=True, errors="replace", timeout=60)
    lines = (done.stdout + done.stderr).splitlines()
    assert any(word in done.stdout + done.stderr for word in ("ComprehensiveSR", "Presentation", "Comprehensive SR"))
    return [line for line in lines if line.startswith(("Error", "E:", "F:"))] + ["failed"] * (done.returncode > 0)


@pytest.mark.parametrize("tool", ["dciodvfy", "dsrdump"])
def test_other_tools_find_no_error(report: Path, tool: str) -> None:
    assert checked(tool, report) == []


def test_the_check_can_fail(report: Path, tmp_path: Path) -> None:
    broken = dcmread(report)
    del broken.CompletionFlag
    broken.save_as(tmp_path / "broken.dcm")
    assert checked("dciodvfy", tmp_path / "broken.dcm") != []


def test_round_trip_of_points_and_measures(report: Path) -> None:
    read, result = read_structured_report(report), predicted()
    kept = [name for index, name in enumerate(SCHEMA.landmarks) if index not in (2, 5)]
    assert list(read.points_px) == kept and read.film_uid == UIDS["SOPInstanceUID"]
    for name, point in read.points_px.items():
        index = SCHEMA.index(name)
        assert point == pytest.approx(tuple(result.points_px[index]), abs=1e-3)
        assert read.expected_error_mm[name] == pytest.approx(result.expected_error_mm[index])  # type: ignore[index]
    expected = [one for one in measure_result(result, SCHEMA) if one.value is not None]
    assert [one.name for one in read.measured] == [one.name for one in expected]
    for one, other in zip(read.measured, expected, strict=True):
        assert (one.kind, one.unit) == (other.kind, other.unit)
        assert (one.value, one.expected_sd) == pytest.approx((other.value, other.expected_sd), rel=1e-12)
    assert read.algorithm == ("net", result.version, f"weights SHA-256 {'ab' * 32}", "landmark schema synthetic")


def test_comment_says_what_it_is_not_for_and_what_is_missing(report: Path) -> None:
    comment = read_structured_report(report).comment
    assert comment.startswith("Not for diagnosis.")
    assert "Landmarks not found, left out: right_anterior_superior_iliac_spine." in comment
    assert "Landmarks outside the film, left out: left_acetabular_edge." in comment
    assert "calibrated" in comment and "one standard deviation" in comment


def test_highdicom_alone_finds_points_half_a_pixel_from_ours(report: Path) -> None:
    content = hd.sr.srread(report).content
    groups = content.get_planar_roi_measurement_groups(
        finding_type=hd.sr.CodedConcept("synthetic.left_iliac_crest", "99MLM", "left iliac crest")
    )
    assert len(groups) == 1
    x, y = groups[0].roi.value[0]
    assert (x, y) == pytest.approx(tuple(FILM.landmarks_px[1] + 0.5), abs=1e-3)
    measures = content.get_image_measurement_groups()[0].get_measurements()
    units = {one.name.meaning: one.unit for one in measures}
    assert units["teardrop distance"] == hd.sr.CodedConcept("mm", "UCUM", "mm")
    assert units["left neck shaft angle"] == hd.sr.CodedConcept("deg", "UCUM", "Degree")


def test_report_is_filed_under_the_film_s_patient_and_study_as_unverified(report: Path) -> None:
    written = dcmread(report)
    assert str(written.PatientName) == PATIENT["PatientName"] and written.SpecificCharacterSet == "ISO_IR 192"
    assert (written.PatientID, written.PatientSex, written.StudyID) == ("P1", "F", "S1")
    assert written.StudyInstanceUID == UIDS["StudyInstanceUID"]
    assert written.SeriesInstanceUID != UIDS["SeriesInstanceUID"]
    assert (written.VerificationFlag, written.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert written.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99MLM"


def test_what_the_film_does_not_say_stays_empty(tmp_path: Path) -> None:
    bare = write_film(tmp_path / "bare.dcm", **dict.fromkeys([*PATIENT, "StudyID", "AccessionNumber"]))
    path = write_structured_report(predicted(), SCHEMA, bare, tmp_path / "bare.sr.dcm")
    written = dcmread(path)
    for keyword in (*PATIENT, "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"):
        assert keyword in written and not written.get(keyword), keyword
    assert "Not valid" not in read_structured_report(path).comment
    assert checked("dciodvfy", path) == []


def test_impossible_values_are_left_out_and_named_but_not_quoted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    odd = write_film(tmp_path / "odd.dcm", PatientBirthDate="03.02.61", PatientSex="X", PatientName="Secret")
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        path = write_structured_report(predicted(), SCHEMA, odd, tmp_path / "odd.sr.dcm")
    assert (
        "Not valid in the film, and empty here: PatientBirthDate, PatientSex." in read_structured_report(path).comment
    )
    assert checked("dciodvfy", path) == []
    assert "Secret" not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_a_film_that_cannot_be_referred_to_is_refused(tmp_path: Path, keyword: str) -> None:
    nameless = write_film(tmp_path / "nameless.dcm", **{keyword: None})
    with pytest.raises(FilmError, match=rf"{keyword} \(00"):
        write_structured_report(predicted(), SCHEMA, nameless, tmp_path / "x.dcm")
    assert not (tmp_path / "x.dcm").exists()


def test_other_films_are_refused(film: Path, tmp_path: Path) -> None:
    (tmp_path / "film.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    with pytest.raises(FilmError, match="only a DICOM film can have a DICOM result"):
        write_structured_report(predicted(), SCHEMA, tmp_path / "film.png", tmp_path / "x.dcm")
    with pytest.raises(DataError, match="not the film that was predicted"):
        write_structured_report(predicted(original_size=(216, 200)), SCHEMA, film, tmp_path / "x.dcm")
    with pytest.raises(DataError, match="nothing to write"):
        nothing = predicted(points_px=np.full((SCHEMA.count, 2), np.nan))
        write_structured_report(nothing, SCHEMA, film, tmp_path / "x.dcm")
    with pytest.raises(DataError, match="not a structured report"):
        read_structured_report(film)


def test_a_film_without_spacing_has_angles_by_its_pixel_aspect(tmp_path: Path) -> None:
    oblong = write_film(tmp_path / "oblong.dcm", PixelSpacing=None, PixelAspectRatio=[2, 1])
    bare = predicted(spacing_mm=None, spacing_source="none", expected_error_mm=None)
    read = read_structured_report(write_structured_report(bare, SCHEMA, oblong, tmp_path / "oblong.sr.dcm"))
    values = {one.name: one.value for one in read.measured}
    assert not values.keys() & SCHEMA.distances.keys()
    tall = SCHEMA.measure(bare.points_px * [1.0, 2.0])
    assert values["left_neck_shaft_angle"] == pytest.approx(tall["left_neck_shaft_angle"])
    assert read.expected_error_mm == {} and "no pixel spacing" in read.comment


def test_names_of_any_length_and_script(film: Path, tmp_path: Path) -> None:
    names = ("sehr_langer_name_mit_Größe_" * 4, "点", "c")
    own = LandmarkSchema("mine", "Mine", names, distances={"Länge": (names[0], names[1])})
    result = predicted(
        names=names,
        points_px=np.array([[1.25, 2], [3, 4], [5, 6.75]]),
        expected_error_mm=None,
        schema="mine",
        model_sha256=None,
        model_name="",
    )
    path = write_structured_report(result, own, film, tmp_path / "own.sr.dcm")
    read = read_structured_report(path)
    assert tuple(read.points_px) == names and read.points_px["点"] == (3, 4)
    assert [one.name for one in read.measured] == ["Länge"]
    assert checked("dciodvfy", path) == []


def test_regions_and_referrals_are_told(film: Path, tmp_path: Path) -> None:
    refer = np.arange(SCHEMA.count) == 1
    guarded = predicted(region_radius_mm=np.full(SCHEMA.count, 3.0), refer=refer, guarantee=Guarantee(0.9, 4.0, 0.05))
    comment = read_structured_report(write_structured_report(guarded, SCHEMA, film, tmp_path / "r.dcm")).comment
    assert "A region holds its landmark in 90% of cases." in comment
    assert "A person should look at: left_iliac_crest." in comment


@pytest.mark.parametrize(("polarity", "shape"), [("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "IDENTITY")])
def test_presentation_state(tmp_path: Path, polarity: str, shape: str) -> None:
    film = write_film(tmp_path / "f.dcm", PhotometricInterpretation=polarity, WindowCenter=2000, WindowWidth=3000)
    path = write_presentation_state(predicted(), film, tmp_path / "f.gsps.dcm")
    state = dcmread(path)
    objects = state.GraphicAnnotationSequence[0].GraphicObjectSequence
    texts = state.GraphicAnnotationSequence[0].TextObjectSequence
    assert len(objects) == len(texts) == SCHEMA.count - 2
    assert list(objects[0].GraphicData) == pytest.approx(list(FILM.landmarks_px[0] + 0.5), abs=1e-3)
    assert (texts[0].UnformattedTextValue, list(texts[0].AnchorPoint)) == ("right iliac crest", objects[0].GraphicData)
    assert state.PresentationLUTShape == shape
    assert state.SoftcopyVOILUTSequence[0].WindowCenter == 2000
    assert checked("dciodvfy", path) == []


def test_a_colored_film_has_no_grayscale_state(tmp_path: Path) -> None:
    film = write_film(tmp_path / "rgb.dcm", PhotometricInterpretation="RGB", SamplesPerPixel=3)
    with pytest.raises(DataError, match="needs a gray film"):
        write_presentation_state(predicted(), film, tmp_path / "x.dcm")


def test_files_never_take_the_film_s_own_name(film: Path, tmp_path: Path) -> None:
    copied = shutil.copy(film, tmp_path / "film.dcm")
    before = Path(copied).read_bytes()
    write_dicom_files(predicted(), tmp_path, SCHEMA, copied)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.dcm", "film.gsps.dcm", "film.sr.dcm"]
    assert Path(copied).read_bytes() == before
    with pytest.raises(DataError, match="leads out of the folder"):
        write_dicom_files(predicted(film="../film"), tmp_path, SCHEMA, copied)


def test_without_highdicom_it_says_what_to_install(film: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ConfigurationError, match=r"monai_landmark\[sr\]"):
        write_structured_report(predicted(), SCHEMA, film, tmp_path / "x.dcm")


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_real_films(shared_data: Path, tmp_path: Path) -> None:
    paths = sorted((shared_data / "dicom").glob("*.dcm"))
    if not paths:
        pytest.skip("no real DICOM films here")
    schema = LandmarkSchema.load("chest6")
    for path in paths:
        size = read_dicom_film(path).size
        points = np.random.default_rng(0).uniform(0, 1, (schema.count, 2)) * (size[1] - 1, size[0] - 1)
        fields = {"names": schema.landmarks, "schema": "chest6", "expected_error_mm": np.ones(schema.count)}
        result = predicted(original_size=size, points_px=points, **fields)
        report = write_structured_report(result, schema, path, tmp_path / "sr.dcm")
        read = np.array(list(read_structured_report(report).points_px.values()))
        assert abs(read - points).max() < 1e-3, path.name
        state = write_presentation_state(result, path, tmp_path / "gsps.dcm")
        for written in (report, state):
            # One film's own UID breaks the rules; what refers to it must as well.
            errors = [line for line in checked("dciodvfy", written) if "999.999.01" not in line]
            assert not [line for line in errors if "invalid data values" not in line and line != "failed"], path.name
