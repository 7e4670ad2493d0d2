"""Label budgets count every label, nest, and never touch the test films."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_landmark.data.budget import labeled_films
from monai_landmark.errors import ConfigurationError
from monai_landmark.files import file_sha256


@pytest.fixture()
def datalist(tmp_path: Path) -> Path:
    def item(name: str, annotated: bool = True, **more: object) -> dict[str, object]:
        facts: dict[str, object] = {"image": f"{name}.png", "id": name, "patient": name, "size": [8, 8]}
        (tmp_path / f"{name}.png").write_bytes(name.encode())
        facts |= {"spacing": None, "spacing_source": "none", "sha256": file_sha256(tmp_path / f"{name}.png")}
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


def test_an_order_comes_before_the_draw(datalist: Path, tmp_path: Path) -> None:
    order = tmp_path / "chosen.csv"
    order.write_text("film,rank,coverage_gained,image\na7,2,0.1,a7.png\nv1,1,0.5,v1.png\nu0,3,0.1,u0.png\n")
    first, second = (_ids(labeled_films(datalist, 6, seed=seed, order=order)) for seed in (0, 1))
    assert first[:2] == second[:2] == ["v1", "a7"] and "u0" not in first
    drawn = [film for film in _ids(labeled_films(datalist, seed=0)) if film not in ("v1", "a7")]
    assert first[2:] == drawn[:4] and first[2:] != second[2:]


@pytest.mark.parametrize("text", ["film,rank\nstranger,1\n", "film,rank\na1,first\n", "name\na1\n", None])
def test_an_order_of_other_films_is_refused(datalist: Path, tmp_path: Path, text: str | None) -> None:
    order = tmp_path / "chosen.csv"
    if text is not None:
        order.write_text(text)
    with pytest.raises(ConfigurationError, match="label_order"):
        labeled_films(datalist, 2, order=order)


@pytest.mark.parametrize(("budget", "validation"), [(13, 0), (3, 3), (-1, 0)])
def test_impossible_budgets_are_refused(datalist: Path, budget: int, validation: int) -> None:
    with pytest.raises(ConfigurationError, match="label_budget"):
        labeled_films(datalist, budget, validation)
