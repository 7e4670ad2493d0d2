"""The report: right numbers, one file without the network, escaped text, and every odd set of films."""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from monai_landmark.apps.commands import report as command
from monai_landmark.data.synthetic import write_synthetic_dataset
from monai_landmark.errors import DataError
from monai_landmark.results import LandmarkResult, load_results, save_results
from monai_landmark.results.evaluation import evaluate_results
from monai_landmark.results.report import ReportInfo, write_report
from monai_landmark.results.result import Guarantee

NAMES = ("alpha", "beta_two", "gamma")
SIZE = (120, 90)
SPACING = (0.5, 0.25)


def film(_: str) -> np.ndarray:
    return np.add.outer(np.arange(SIZE[0]), np.arange(SIZE[1])).astype(np.float32)


def result(name: str, points: object, **changes: object) -> LandmarkResult:
    fields = {"spacing_mm": SPACING, "spacing_source": "user", "model_sha256": "ab" * 32, "model_name": "net"} | changes
    return LandmarkResult(name, SIZE, NAMES, np.asarray(points, dtype=float), **fields)  # type: ignore[arg-type]


def cohort(count: int, seed: int = 0, **changes: object) -> tuple[list[LandmarkResult], dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    references = {f"film-{index:04d}": random.uniform(20, 80, (3, 2)) for index in range(count)}
    results = [result(name, points + random.normal(0, 4, (3, 2)), **changes) for name, points in references.items()]
    return results, references


def read(path: Path) -> tuple[str, dict]:
    metrics = json.loads(path.with_name("metrics.json").read_text(encoding="utf-8"))
    return path.read_text(encoding="utf-8"), metrics


class Resources(HTMLParser):
    """Collects everything a browser would load, and every tag."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for key, value in attrs:
            if key in {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"}:
                self.loaded.append(value or "")
            if key.startswith("on"):
                self.handlers.append(key)


def test_numbers_against_plain_arithmetic(tmp_path) -> None:
    references = {"a": np.array([[10, 10], [20, 20], [30, 30]]), "b": np.array([[10, 10], [20, 20], [np.nan, np.nan]])}
    # Offsets in px; one step along x is 0.25 mm, along y 0.5 mm: errors 2 (exactly), 1, 5 and 0, not found.
    results = [
        result("a", references["a"] + [[8, 0], [0, 2], [12, 8]]),
        result("b", np.array([[10, 10], [np.nan, np.nan], [50, 50]])),
    ]
    _, metrics = read(write_report(tmp_path / "report.html", results, references))
    summary = metrics["all_films"]
    assert metrics["unit"] == "mm"
    assert metrics["comparison"] == "<="
    assert (summary["films"], summary["n"], summary["missing"]) == (2, 5, 1)
    assert summary["mre_found_mm"] == pytest.approx((2 + 1 + 5 + 0) / 4)
    assert summary["mre_found_mm_per_film"] == pytest.approx((8 / 3 + 0) / 2)
    assert summary["mre_mm"] is None  # infinite: one landmark was not found
    assert summary["sdr2"] == pytest.approx(100 * 3 / 5)
    assert metrics["landmarks"][2]["not_annotated"] == 1
    assert metrics["landmarks"][0]["mean_dx_mm"] == pytest.approx(1.0)
    rows = list(csv.DictReader((tmp_path / "errors.csv").open(encoding="utf-8")))
    assert len(rows) == 5
    assert (rows[2]["dx_mm"], rows[2]["dy_mm"], rows[2]["error_mm"], rows[2]["dx_px"]) == ("3", "4", "5", "12")
    assert rows[4]["error_mm"] == ""
    assert load_results(tmp_path / "predictions.json") == results
    strict = read(write_report(tmp_path / "strict.html", results, references, inclusive=False))[1]
    assert strict["all_films"]["sdr2"] == pytest.approx(100 * 2 / 5)


def test_one_file_that_loads_nothing(tmp_path) -> None:
    results, references = cohort(8)
    html, _ = read(write_report(tmp_path / "report.html", results, references, films=film))
    page = Resources()
    page.feed(html)
    assert page.loaded
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.loaded)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not page.handlers
    assert not re.search(
        r"https?:|//[a-z]|url\(|@import", re.sub(r"(base64,|sha256-)[A-Za-z0-9+/=]+", "", html).replace("  // ", "")
    )
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html).group(1)
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy


def test_hostile_text_stays_text(tmp_path) -> None:
    evil = '<script>alert("1")</script>'
    points = np.full((3, 2), 30.0)
    bad = result(evil, points, warnings=(evil,), model_name=evil, schema=evil)
    info = ReportInfo(**{key: evil for key in ("title", "dataset", "split", "reader", "command", "commit", "machine")})
    html, _ = read(
        write_report(tmp_path / "r.html", [bad], {evil: points}, info=info, films=film, near_duplicates={evil: [evil]})
    )
    page = Resources()
    page.feed(html)
    assert page.tags.count("script") == 1
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;" in html


def test_leak_free_stands_beside_all(tmp_path) -> None:
    references = {name: np.full((3, 2), 40.0) for name in ("clean", "leaked")}
    results = [result("clean", np.tile([48.0, 40.0], (3, 1))), result("leaked", np.full((3, 2), 40.0))]
    path = write_report(tmp_path / "r.html", results, references, near_duplicates={"leaked": ["train-1"], "clean": []})
    html, metrics = read(path)
    assert metrics["all_films"]["mre_mm"] == pytest.approx(1.0)
    assert metrics["leak_free"]["mre_mm"] == pytest.approx(2.0)
    assert metrics["leak_free"]["films"] == 1
    assert "With and without near-duplicates" in html
    assert "train-1" in html
    assert "With and without" not in read(write_report(tmp_path / "n.html", results, references))[0]


def test_without_spacing_everything_is_in_px(tmp_path) -> None:
    results, references = cohort(5, spacing_mm=None, spacing_source="none")
    html, metrics = read(write_report(tmp_path / "r.html", results, references, films=film))
    assert metrics["unit"] == "px"
    assert "mre_px" in metrics["all_films"]
    assert not [key for key in metrics["all_films"] if "mm" in key]
    text = re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.DOTALL)
    visible = re.sub(r"<[^>]+>", " ", text)
    assert not re.search(r"\d\s*mm\b", visible)
    assert re.search(r"\d\s*px\b", visible)


def test_films_without_spacing_are_never_pooled_with_millimeters(tmp_path) -> None:
    results, references = cohort(3)
    loose = result("loose", references["film-0000"] + 50, spacing_mm=None, spacing_source="none")
    both = write_report(tmp_path / "b.html", [*results, loose], references | {"loose": references["film-0000"]})
    alone = write_report(tmp_path / "sub" / "a.html", results, references)
    html, metrics = read(both)
    assert metrics["all_films"] == read(alone)[1]["all_films"]
    assert metrics["unmeasured_films"] == ["loose"]
    assert "left out of every figure: 1" in html


def test_single_film_and_a_landmark_without_any_point(tmp_path) -> None:
    reference = np.array([[30.0, 30], [np.nan, np.nan], [60, 60]])
    lonely = result("one", [[31, 30], [50, 50], [60, 61]])
    html, metrics = read(write_report(tmp_path / "r.html", [lonely], {"one": reference}, films=film))
    assert metrics["landmarks"][1]["n"] == 0
    assert metrics["landmarks"][1]["mre_mm"] is None
    assert "not annotated" in html
    assert not re.search(r"\bnan\b", re.sub(r"base64,[A-Za-z0-9+/=]+", "", html), re.IGNORECASE)


def test_everything_not_found_still_reports(tmp_path) -> None:
    lost = result("lost", np.full((3, 2), np.nan))
    html, metrics = read(write_report(tmp_path / "r.html", [lost], {"lost": np.full((3, 2), 9.0)}, films=film))
    assert metrics["all_films"]["sdr4"] == 0
    assert "not found: 3" in html


def test_predictions_without_reference_make_a_gallery(tmp_path) -> None:
    results, _ = cohort(4)
    html, metrics = read(write_report(tmp_path / "r.html", results, films=film))
    assert metrics["all_films"] is None
    assert html.count("<figure>") == 4
    assert "Error roses" not in html
    assert not (tmp_path / "errors.csv").exists()


def test_regions_and_referrals_are_drawn_told_and_counted(tmp_path) -> None:
    promise = {
        "region_radius_mm": [2.0, 3.0, np.nan],
        "refer": [True, False, False],
        "guarantee": Guarantee(0.9, 4, 0.1),
    }
    results, references = cohort(2, **promise)
    page, metrics = read(write_report(tmp_path / "r.html", results, references, films=film))
    ellipses = re.findall(r'<ellipse cx="[\d.]+" cy="[\d.]+" rx="([\d.]+)" ry="([\d.]+)"( class="refer")?/>', page)
    assert len(ellipses) == 4  # two films, and the third landmark has no region
    assert [bool(kind) for *_, kind in ellipses] == [True, False, True, False]
    # One film pixel is 0.25 mm wide and 0.5 mm tall, and the picture keeps true proportions: circles.
    assert all(float(rx) == pytest.approx(float(ry), rel=0.01) for rx, ry, _ in ellipses)
    assert float(ellipses[1][0]) == pytest.approx(1.5 * float(ellipses[0][0]), rel=0.01)
    assert "region holds its landmark in 90 % of cases" in page
    assert "1 to be looked at" in page
    assert "<th" in page and "To look at" in page
    assert [row["refer"] for row in metrics["film_rows"]] == [1, 1]
    plain, _ = read(write_report(tmp_path / "plain.html", *cohort(2), films=film))
    assert "<ellipse" not in plain and "To look at" not in plain


def test_pictures_are_asked_for_the_shown_films_only_and_a_broken_one_is_told(tmp_path) -> None:
    results, references = cohort(1000)
    asked: list[str] = []

    def reader(name: str) -> np.ndarray:
        asked.append(name)
        if len(asked) == 1:
            raise DataError("broken")
        return film(name)

    path = write_report(tmp_path / "r.html", results, references, films=reader, max_pictures=9)
    html, metrics = read(path)
    assert len(asked) == 9
    assert f"could not be read: {asked[0]}" in html
    assert path.stat().st_size < 3e6
    assert len(metrics["film_rows"]) == 1000
    means = {row["film"]: row["mean_mm"] for row in metrics["film_rows"]}
    assert asked[0] == min(means, key=means.get)
    assert max(means, key=means.get) in asked


def test_pictures_do_not_grow_with_the_film(tmp_path) -> None:
    big = LandmarkResult("big", (3000, 2500), NAMES, np.full((3, 2), 100.0))
    noise = np.random.default_rng(0).normal(size=(3000, 2500)).astype(np.float32)
    html, _ = read(write_report(tmp_path / "r.html", [big], films=lambda _: noise))
    width, height = map(int, re.search(r'data-width="(\d+)" data-height="(\d+)"', html).groups())
    assert width <= 900
    assert width / height == pytest.approx(2500 / 3000, rel=0.01)


@pytest.mark.parametrize(
    ("results", "references", "match"),
    [
        ([], None, "no result"),
        ([result("a", np.zeros((3, 2)))] * 2, None, "twice"),
        ([result("a", np.zeros((3, 2))), LandmarkResult("b", SIZE, ("x",), np.zeros((1, 2)))], None, "other landmarks"),
        ([result("a", np.zeros((3, 2)))], {"a": np.zeros((4, 2))}, "does not fit"),
    ],
)
def test_refusals(results, references, match: str) -> None:
    with pytest.raises(DataError, match=match):
        evaluate_results(results, references)


def test_a_picture_of_another_size_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="not the film"):
        write_report(tmp_path / "r.html", cohort(1)[0], films=lambda _: np.zeros((5, 5), np.float32))


def test_command_rebuilds_the_report_from_saved_predictions(tmp_path, capsys) -> None:
    datalist = write_synthetic_dataset(tmp_path / "data", training=1, test=2, unlabelled=0, size=(240, 220))
    items = json.loads(datalist.read_text(encoding="utf-8"))["test"]
    names = command.LandmarkSchema.load("synthetic").landmarks
    results = []
    for item in items:
        points = np.array([(50, 50) if point is None else point for point in item["landmarks"]], dtype=float)
        points[:, 0] += 2
        spacing = tuple(item["spacing"])
        results.append(
            LandmarkResult(item["id"], tuple(item["size"]), names, points, spacing, "user", schema="synthetic")
        )
    save_results(results, tmp_path / "out" / "predictions.json")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    arguments = [str(tmp_path / "out"), "--datalist", str(datalist), "--title", "Again", "--thresholds-mm", "1", "9"]
    assert command.run(parser.parse_args(arguments)) == 0
    html, metrics = read(tmp_path / "out" / "report.html")
    assert "<h1>Again</h1>" in html
    assert html.count("<image ") == 2
    expected = [2 * item["spacing"][1] for item in items for point in item["landmarks"] if point is not None]
    assert metrics["all_films"]["mre_mm"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert metrics["all_films"]["sdr9"] == 100
    assert metrics["info"]["reader"] == "exact"
    # Without the datalist the folder's own metrics.json still says where the predictions came from.
    save_results(results[:1], tmp_path / "out" / "predictions.json")
    assert command.run(parser.parse_args([str(tmp_path / "out"), "--datalist", str(datalist)])) == 3
    assert "1 films of the section were not predicted" in capsys.readouterr().out
    assert read(tmp_path / "out" / "report.html")[1]["info"]["title"] == "Again"


def test_distance_between_readers_in_mm() -> None:
    item = {"spacing": [0.5, 0.25], "readers": {"senior": [[0, 0], [1, 1], None], "junior": [[12, 8], None, [2, 2]]}}
    assert command.inter_reader_mm([item, {"spacing": None, "readers": item["readers"]}])[0] == pytest.approx(5.0)
    assert command.inter_reader_mm([{"spacing": [1, 1]}]) == (None, "")
