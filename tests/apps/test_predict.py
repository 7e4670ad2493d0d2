"""``predict``: films of every kind in, result files out, with a network trained for two steps."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from monai.bundle import run
from PIL import Image
from pydicom import FileDataset, FileMetaDataset, dcmread
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid
from safetensors.torch import load_file, save_file

import monai_landmark.results
from monai_landmark.apps.cli import main
from monai_landmark.apps.predict import LandmarkPredictor
from monai_landmark.data.synthetic import synthesize_film, write_synthetic_dataset
from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.files import file_sha256
from monai_landmark.results.structured_report import read_structured_report

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "xray_landmarks"
TABLES = {"landmarks.csv", "measurements.csv"}
SCHEMA = json.loads(Path(monai_landmark.results.__file__).with_name("landmark_result.schema.json").read_text())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, train_two_steps: Callable[..., None]) -> Path:
    """Folder of a model that the bundle trained for two steps."""
    folder = tmp_path_factory.mktemp("model")
    write_synthetic_dataset(folder / "films", training=3, test=0, unlabelled=0, size=(200, 216))
    train_two_steps(folder / "films", folder)
    return folder


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DICOM film with its spacing and a PNG without."""
    folder = tmp_path_factory.mktemp("films")
    film = synthesize_film(1, (200, 216))
    write_dicom(folder / "one.dcm", film.pixels, film.spacing_mm)
    Image.fromarray((synthesize_film(2, (200, 216)).pixels >> 8).astype(np.uint8)).save(folder / "two.png")
    return folder


def test_every_member_of_an_ensemble_is_heard(model: Path, films: Path, tmp_path: Path) -> None:
    first, other = tmp_path / "first", tmp_path / "other"
    weights, card = load_file(model / "model.safetensors"), json.loads((model / "model.json").read_text())
    for folder, factor in ((first, 1e3), (other, -1e3)):  # two steps leave the last layer near 0: nearly even maps
        folder.mkdir()
        scaled = {name: tensor * factor if ".out.2." in name else tensor for name, tensor in weights.items()}
        save_file(scaled, folder / "model.safetensors")
        card = {**json.loads((model / "model.json").read_text()), "sha256": file_sha256(folder / "model.safetensors")}
        (folder / "model.json").write_text(json.dumps(card))
    item = {"image": str(films / "one.dcm"), "id": "one"}
    alone, twice, mixed = (
        LandmarkPredictor(BUNDLE, first, "cpu", calibration=None, precision="float32", members=members)(item)
        for members in ([], [str(first)], [str(other)])
    )
    np.testing.assert_allclose(twice.points_px, alone.points_px, atol=1e-3)  # one opinion heard twice
    np.testing.assert_allclose(twice.expected_error_mm, alone.expected_error_mm, rtol=1e-3)
    assert np.nanmax(np.abs(mixed.expected_error_mm / alone.expected_error_mm - 1)) > 0.05
    (other / "model.json").write_text(
        json.dumps({**json.loads((model / "model.json").read_text()), "schema": "isbi19"})
    )
    with pytest.raises(RuntimeError) as caught:
        LandmarkPredictor(BUNDLE, first, "cpu", members=[str(other)])
    assert "another kind" in str(caught.value.__cause__)


def write_dicom(path: Path, pixels: Any, spacing_mm: tuple[float, float]) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    film.SOPClassUID, film.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    film.Modality, film.PhotometricInterpretation, film.PatientName = "CR", "MONOCHROME2", "Doe^Jane"
    film.Rows, film.Columns = pixels.shape
    film.SamplesPerPixel, film.PixelRepresentation = 1, 0
    film.BitsAllocated = film.BitsStored = 16
    film.HighBit = 15
    film.PixelSpacing, film.PixelSpacingCalibrationType = list(spacing_mm), "FIDUCIAL"
    film.PixelData = pixels.astype("<u2").tobytes()
    film["PixelData"].VR = "OW"
    film.save_as(path, enforce_file_format=True)


def predict(model: Path, out: Path, *words: str | Path) -> int:
    options = ["--bundle", BUNDLE, "--model-dir", model, "--out", out, "--device", "cpu"]
    return main([str(word) for word in ("predict", *words, *options)])


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def out(model: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that ``predict`` wrote for both films; there is no annotation anywhere near them."""
    folder = tmp_path_factory.mktemp("out")
    assert predict(model, folder, films) == 0
    return folder


def test_writes_every_file_for_every_film(out: Path) -> None:
    kinds = (".json", ".mrk.json", ".png")
    assert {p.name for p in out.iterdir()} == {f"{n}{k}" for n in ("one", "two") for k in kinds} | TABLES
    with open(out / "landmarks.csv", newline="") as table:
        assert [row["film"] for row in csv.DictReader(table)] == ["one"] * 22 + ["two"] * 22


@pytest.mark.parametrize("name", ["one", "two"])
def test_result_is_valid_and_on_the_film(out: Path, model: Path, name: str) -> None:
    result = read(out / f"{name}.json")
    jsonschema.validate(result, SCHEMA)
    assert result["original_size"] == [200, 216] and len(result["landmarks"]) == 22
    assert result["model"]["sha256"] == read(model / "model.json")["sha256"]
    points = np.array([[point["x_px"], point["y_px"]] for point in result["landmarks"]], dtype=float)
    assert (points > -20).all() and (points < [236, 220]).all()


def test_dicom_spacing_makes_millimeters(out: Path) -> None:
    result, (row_mm, col_mm) = read(out / "one.json"), synthesize_film(1, (200, 216)).spacing_mm
    assert result["spacing_source"] == "calibrated" and result["spacing_mm"] == pytest.approx([row_mm, col_mm])
    for point in result["landmarks"]:
        assert point["x_mm"] == pytest.approx(point["x_px"] * col_mm, abs=0.01)
        assert point["y_mm"] == pytest.approx(point["y_px"] * row_mm, abs=0.01)


def test_film_without_spacing_has_no_millimeters(out: Path) -> None:
    result = read(out / "two.json")
    assert result["spacing_source"] == "none" and result["spacing_mm"] is None
    in_mm = [value for point in result["landmarks"] for key, value in point.items() if key.endswith("_mm")]
    assert in_mm and set(in_mm) == {None}


def test_nothing_of_the_patient_is_written(out: Path) -> None:
    assert not [path for path in out.iterdir() if b"Doe" in path.read_bytes()]


def test_user_spacing_overrules_the_film(model: Path, films: Path, tmp_path: Path) -> None:
    assert predict(model, tmp_path, films / "two.png", "--spacing", "0.5", "0.25", "--files", "json") == 0
    result = read(tmp_path / "two.json")
    assert result["spacing_source"] == "user" and result["spacing_mm"] == [0.5, 0.25]
    assert {path.name for path in tmp_path.iterdir()} == {"two.json"} | TABLES


def test_broken_film_is_left_out_and_named(
    model: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(films, tmp_path / "in")
    (tmp_path / "in" / "broken [nan].dcm").write_bytes((films / "one.dcm").read_bytes()[:900])
    (tmp_path / "in" / "empty.png").touch()
    assert predict(model, tmp_path / "out", tmp_path / "in", "--files", "json") == 3
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"one.json", "two.json"} | TABLES
    said = capsys.readouterr().out
    assert "broken [nan].dcm" in said and "empty.png" in said and "2 of 4 films" in said


@pytest.mark.parametrize("spacing", [["nan", "0.1"], ["0", "0.1"], ["0.1", "50"]])
def test_impossible_spacing_is_refused_before_anything_runs(
    model: Path, films: Path, tmp_path: Path, spacing: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(model, tmp_path / "out", films, "--spacing", *spacing) == 1
    assert "--spacing" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_folder_without_films_is_an_error(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    assert predict(model, tmp_path / "out", tmp_path / "in") == 1
    assert "no film found" in capsys.readouterr().err


def test_no_weights_and_no_bundle_are_said(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(tmp_path, tmp_path / "out", films) == 1
    assert "no such weights file" in capsys.readouterr().err
    assert main(["predict", str(films), "--bundle", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "not a bundle" in capsys.readouterr().err
    with pytest.raises(WeightsError):
        LandmarkPredictor(BUNDLE, tmp_path, "cpu")
    with pytest.raises(ConfigurationError):
        LandmarkPredictor(tmp_path)


def test_bundle_infer_gives_the_same(model: Path, films: Path, out: Path, tmp_path: Path) -> None:
    config = str(BUNDLE / "configs" / "inference.yaml")
    folders = {"dataset_dir": str(films), "model_dir": str(model), "output_dir": str(tmp_path)}
    run(run_id="infer", config_file=config, **folders)
    for name in ("one", "two"):
        ours, theirs = read(out / f"{name}.json"), read(tmp_path / f"{name}.json")
        for our, their in zip(ours.pop("landmarks"), theirs.pop("landmarks"), strict=True):
            assert our == pytest.approx(their, abs=1e-3)
        assert ours == theirs


def test_dicom_results_for_dicom_films_and_a_reason_for_the_others(
    model: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("highdicom")
    source = dcmread(films / "one.dcm")
    source.StudyInstanceUID, source.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    (tmp_path / "films").mkdir()
    source.save_as(tmp_path / "films" / "one.dcm")
    shutil.copy(films / "two.png", tmp_path / "films")
    assert predict(model, tmp_path / "out", tmp_path / "films", "--files", "json", "--dicom", "sr", "gsps") == 3
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"one.json", "two.json", "one.sr.dcm", "one.gsps.dcm"} | TABLES
    assert "two.png: only a DICOM film can have a DICOM result" in capsys.readouterr().out
    found = {mark["name"]: (mark["x_px"], mark["y_px"]) for mark in read(tmp_path / "out" / "one.json")["landmarks"]}
    for name, point in read_structured_report(tmp_path / "out" / "one.sr.dcm").points_px.items():
        assert point == pytest.approx(found[name], abs=1e-3)
