"""Cross-validation: every film once, and what belongs together stays together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_landmark.data.datalist import Datalist
from monai_landmark.errors import ConfigurationError
from monai_landmark.study.folds import fold_datalists, main

KNOWN: dict[str, Any] = {"size": [9, 9], "spacing": None, "spacing_source": "none", "visibility": [2] * 6}


def item(name: str, patient: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": name, "image": f"{name}.png", "patient": patient or name, "landmarks": [[1, 2]] * 6, **KNOWN, **more}


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    content = {
        "name": "few",
        "root": ".",
        "schema": "chest6",
        "training": [item("a", "p"), item("b", "p"), item("c"), item("d", near_duplicates=["e"])],
        "test": [item("e", near_duplicates=["d"]), item("f")],
        "unlabelled": [{key: value for key, value in item("g").items() if key not in ("landmarks", "visibility")}],
        "duplicates": [{"films": ["d", "e"], "similarity": 0.97, "identical": False}],
    }
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("folds", [2, 3, 4])
def test_every_film_is_left_out_once(datalist: Path, folds: int) -> None:
    found = fold_datalists(Datalist.load(datalist), folds)
    tested = [{film["id"] for film in one.sections["test"]} for one in found]
    assert len(found) == folds and sorted(name for names in tested for name in names) == list("abcdef")
    for one, names in zip(found, tested, strict=True):
        assert {film["id"] for film in one.sections["training"]} == set("abcdef") - names
        assert len(names & {"a", "b"}) != 1 and len(names & {"d", "e"}) != 1  # one patient, one picture


@pytest.mark.parametrize("folds", [1, 5])
def test_more_folds_than_patients_are_refused(datalist: Path, folds: int) -> None:
    with pytest.raises(ConfigurationError, match="divided"):
        fold_datalists(Datalist.load(datalist), folds)


def test_files_lead_to_the_films_from_another_folder(datalist: Path, tmp_path: Path) -> None:
    main(["--datalist", str(datalist), "--folds", "4", "--output_dir", str(tmp_path / "deep" / "folds")])
    for fold in range(4):
        one = Datalist.load(tmp_path / "deep" / "folds" / f"{fold}.json")
        assert one.root == tmp_path and one.schema == "chest6"
        assert all("near_duplicates" not in film for _, film in one.items())
