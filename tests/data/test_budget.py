"""Label budgets count every label, nest, and never touch the test films."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_landmark.data.budget import labeled_films
from monai_landmark.errors import ConfigurationError


@pytest.fixture()
def datalist(tmp_path: Path) -> Path:
    def item(name: str, annotated: bool = True, **more: object) -> dict[str, object]:
        facts: dict[str, object] = {"image": f"{name}.png", "id": name, "patient": name, "size": [8, 8]}
        facts |= {"spacing": None, "spacing_source": "none", "sha256": "0" * 64}
        if annotated:
            facts |= {"landmarks": [[1.0, 2.0]] * 6, "visibility": [2] * 6}
        return facts | more

    content = {
        "name": "toy",
        "schema": "chest6",
        "root": ".",
        "training": [item(f"a{i}") for i in range(10)],
        "validation": [item(f"v{i}") for i in range(2)],
        "test": [item("t0", near_duplicates=["u0"]), item("t1")],
        "unlabelled": [item("u0", annotated=False, near_duplicates=["t0"]), item("u1", annotated=False)],
    }
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps(content))
    return path


def _ids(items: list[dict[str, object]]) -> list[object]:
    return [item["id"] for item in items]


def test_validation_films_are_part_of_the_budget(datalist: Path) -> None:
    training = labeled_films(datalist, budget=6, validation=2, seed=1)
    validation = labeled_films(datalist, budget=6, validation=2, seed=1, part="validation")
    assert (len(training), len(validation)) == (4, 2)
    assert not set(_ids(training)) & set(_ids(validation))


def test_smaller_budgets_are_subsets_and_seeds_differ(datalist: Path) -> None:
    five, nine = (_ids(labeled_films(datalist, budget=budget, seed=3)) for budget in (5, 9))
    assert nine[:5] == five
    assert _ids(labeled_films(datalist, budget=5, seed=4)) != five


def test_all_films_but_never_the_test_ones(datalist: Path) -> None:
    ids = _ids(labeled_films(datalist))
    assert len(ids) == 12 and not {"t0", "t1"} & set(ids)


@pytest.mark.parametrize(("budget", "validation"), [(13, 0), (3, 3), (-1, 0)])
def test_impossible_budgets_are_refused(datalist: Path, budget: int, validation: int) -> None:
    with pytest.raises(ConfigurationError, match="label_budget"):
        labeled_films(datalist, budget, validation)
