"""A study with invented predictions: folders as `evaluate` leaves them, so that tables need no training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.results import LandmarkResult
from monai_landmark.results.report import ReportInfo, write_report
from monai_landmark.study.grid import Study

NAMES = ("alpha", "beta_two", "gamma")
SIZE = (120, 90)
FILMS = tuple(f"film-{index:02d}" for index in range(12))

MakeStudy = Callable[..., Study]
Finish = Callable[..., None]


@pytest.fixture
def make_study(tmp_path: Path) -> MakeStudy:
    """Writes a study file with the given keys and reads it."""

    def make(**changes: object) -> Study:
        datalist = tmp_path / "datalist.json"
        LandmarkSchema("own", "three points", NAMES).to_yaml(tmp_path / "own.yaml")
        known = {"image": "none.png", "size": SIZE, "spacing": None, "spacing_source": "none"}
        known |= {"landmarks": [[1, 2]] * 3, "visibility": [2] * 3}
        items = [{"id": film, "patient": film[:6], **known} for film in FILMS]
        datalist.write_text(json.dumps({"name": "own", "root": ".", "schema": "own.yaml", "test": items}))
        content = {
            "name": "invented",
            "datasets": {"own": {"datalist": str(datalist)}},
            "budgets": [5, "all"],
            "seeds": [0, 1],
            "initializations": {"random": {}, "better": {}},
            **changes,
        }
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return Study.load(path)

    return make


@pytest.fixture
def finish(tmp_path: Path) -> Finish:
    """Leaves a finished cell: every landmark off by ``error_px`` times a factor of its film."""
    reference = np.random.default_rng(0).uniform(30, 60, (len(FILMS), len(NAMES), 2))
    hard = np.random.default_rng(1).gamma(4, 0.25, len(FILMS))

    def leave(
        study: Study,
        index: int,
        error_px: float,
        spacing: tuple[float, float] | None = (0.5, 0.5),
        films: slice = slice(None),
    ) -> None:
        cell = study.cells()[index]
        off = error_px * hard[:, None, None] * np.array([0.6, 0.8])
        source = "none" if spacing is None else "user"
        results = [
            LandmarkResult(film, SIZE, NAMES, points, spacing_mm=spacing, spacing_source=source)
            for film, points in list(zip(FILMS, reference + off, strict=True))[films]
        ]
        info = ReportInfo(reader="mean", labels=cell.labels or 40, split="test (12 films)", inter_reader_mm=1.5)
        write_report(
            tmp_path / "work" / cell.name / "evaluation" / "report.html",
            results,
            dict(list(zip(FILMS, reference, strict=True))[films]),
            info=info,
            near_duplicates={film: ["other"] for film in FILMS[3:4] if film in FILMS[films]},
            max_pictures=0,
        )
        done = {"seconds": 60.0, "commit": "abc", "date": "2026-01-01", "machine": "none"}
        (tmp_path / "work" / cell.name / "done.json").write_text(json.dumps(done))

    leave.mean_px = float(hard.mean())  # type: ignore[attr-defined]
    leave.hard = hard  # type: ignore[attr-defined]
    return leave
