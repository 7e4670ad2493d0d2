"""What others get of a report: the same numbers, and no name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from monai_landmark.apps.cli import main
from monai_landmark.data.datalist import Datalist, save_datalist
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.privacy import pseudonym
from monai_landmark.results.files import save_results
from monai_landmark.results.result import LandmarkResult

NAMES = LandmarkSchema.load("chest6").landmarks
SECRETS = ("DOE", "Jane", "reader_Smith", "Saint Planted")


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """Three films that two readers have annotated, with predictions; everything is called after somebody."""
    draw, items, results = np.random.default_rng(0), [], []
    for number in range(3):
        film, truth = f"DOE_{number}", draw.uniform(20, 80, (6, 2)).round(2)
        item = {
            "image": f"{film}.png",
            "id": film,
            "patient": f"Jane {number}",
            "size": [100, 90],
            "spacing": [0.1, 0.1],
        }
        item |= {"spacing_source": "user", "landmarks": truth.tolist(), "visibility": [2] * 6}
        item["readers"] = {"reader_Smith": truth.tolist(), "reader_Doe": (truth + 1).tolist()}
        items.append(item)
        results.append(LandmarkResult(film, (100, 90), NAMES, truth + 3, (0.1, 0.1), "user", schema="chest6"))
    save_datalist(Datalist("Saint Planted", "chest6", tmp_path, {"test": items}), tmp_path / "datalist.json")
    save_results(results, tmp_path / "predictions.json")
    return tmp_path


def test_the_same_numbers_and_no_name(clinic: Path) -> None:
    (clinic / "salt").write_text("0123456789abcdef")
    words = [
        "report",
        str(clinic / "predictions.json"),
        "--datalist",
        str(clinic / "datalist.json"),
        "--max-pictures",
        "0",
    ]
    assert main([*words, "--out", str(clinic / "own")]) == 0
    assert main([*words, "--out", str(clinic / "out"), "--share", "--salt", str(clinic / "salt")]) == 0
    own, shared = (json.loads((clinic / name / "metrics.json").read_text()) for name in ("own", "out"))
    assert (
        own["all_films"] == shared["all_films"] and own["info"]["inter_reader_mm"] == shared["info"]["inter_reader_mm"]
    )
    assert {row["film"] for row in shared["film_rows"]} == {pseudonym(f"DOE_{n}", "0123456789abcdef") for n in range(3)}
    for name, there in (("own", {"DOE", "reader_Smith", "Saint Planted"}), ("out", set())):
        said = b"".join(path.read_bytes() for path in (clinic / name).iterdir()).decode()
        assert {secret for secret in SECRETS if secret in said} >= there
        assert there or not any(secret in said for secret in SECRETS)


def test_not_beside_the_predictions(clinic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(clinic / "predictions.json"), "--share"]) == 1
    assert "--out" in capsys.readouterr().err
