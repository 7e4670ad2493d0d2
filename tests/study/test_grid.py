"""A study file and the cells it asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_landmark.errors import ConfigurationError
from monai_landmark.study.grid import Study


def test_cells_are_the_grid_and_what_can_be_told_early_comes_early(make_study) -> None:
    study = make_study(modes=["full", "frozen"])
    names = [cell.name for cell in study.cells()]
    assert len(names) == len(set(names)) == 2 * 2 * 2 * 2
    assert names[:2] == ["cells/own/5/random/full/s0", "cells/own/5/random/frozen/s0"]
    assert [name for name in names if name.endswith("s0")] == names[:8] and any("/all/" in name for name in names)


def test_a_baseline_has_one_mode_and_a_source_is_not_its_own_target(make_study) -> None:
    datasets = {"own": {"datalist": "a.json"}, "hand": {"datalist": "b.json"}}
    starts = {"random": {}, "shape": {"baseline": "mean_shape"}, "from_hand": {"source": "hand"}}
    study = make_study(datasets=datasets, initializations=starts, modes=["full", "frozen"], budgets=[5], seeds=[0])
    found = {(cell.dataset, cell.initialization, cell.mode) for cell in study.cells()}
    assert ("own", "shape", "full") in found and ("own", "shape", "frozen") not in found
    assert ("own", "from_hand", "full") in found and not any(d == "hand" and i == "from_hand" for d, i, _ in found)
    only = make_study(datasets=datasets, initializations=starts, target=["hand"])
    assert {cell.dataset for cell in only.cells()} == {"hand"}


def test_folds_stand_in_place_of_seeds_and_budgets(make_study) -> None:
    datasets = {"own": {"datalist": "a.json"}, "hand": {"datalist": "b.json", "folds": 3}}
    study = make_study(datasets=datasets, initializations={"random": {}, "hand": {"source": "hand"}})
    names = [cell.name for cell in study.cells() if cell.dataset == "hand"]
    assert names == [f"cells/hand/all/random/full/s{fold}" for fold in range(3)]
    assert sum(cell.dataset == "own" for cell in study.cells()) == 2 * 2 * 2


def test_names_of_the_environment_are_filled_in(make_study, monkeypatch) -> None:
    monkeypatch.setenv("WEIGHTS", "/somewhere/w.pth")
    study = make_study(
        initializations={"imagenet": {"start": "$WEIGHTS", "pretrain": {"pool": [{"path": "$WEIGHTS"}]}}}
    )
    row = study.initializations["imagenet"]
    assert row.start == "/somewhere/w.pth" and row.pretrain == {"pool": [{"path": "/somewhere/w.pth"}]}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"budgets": [0.5]}, "budgets"),
        ({"budgets": [5, 5]}, "budgets"),
        ({"budgets": []}, "budgets"),
        ({"by_budget": [5]}, "by_budget"),
        ({"by_budget": {5: None}}, "by_budget, 5"),
        ({"by_budget": {7: {"train": {}}}}, "by_budget"),
        ({"by_budget": {5: {"epochs": 3}}}, "by_budget, 5"),
        ({"seeds": [-1]}, "seeds"),
        ({"modes": ["half"]}, "modes"),
        ({"validation_share": 1.0}, "validation_share"),
        ({"target": ["other"]}, "target"),
        ({"initializations": {}}, "initializations"),
        ({"initializations": {"a": {"baseline": "oracle"}}}, "initializations, a"),
        ({"initializations": {"a": {"source": "nowhere"}}}, "initializations, a"),
        ({"initializations": {"a": {"source": "own", "pretrain": {"objective": "ddpm"}}}}, "initializations, a"),
        ({"initializations": {"a": {"weights": "x"}}}, "initializations, a"),
        ({"datasets": {"own": {}}}, "datasets, own"),
        ({"datasets": {"own": {"datalist": "a.json", "folds": -1}}}, "datasets, own"),
        (
            {"datasets": {"own": {"datalist": "a.json", "folds": 2}}, "initializations": {"a": {"pretrain": {}}}},
            "initializations",
        ),
        ({"epochs": 3}, "study"),
    ],
)
def test_what_is_no_study_is_refused(make_study, changes, field) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make_study(**changes)
    assert caught.value.field == field and caught.value.file is not None


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "name: x"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError):
        Study.load(path)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        Study.load(tmp_path / "none.yaml")
