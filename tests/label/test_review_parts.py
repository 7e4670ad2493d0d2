"""The review page's parts that need neither a browser nor MONAI Label: what it is told, how its files are served."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from test_label_pacs import film as dicom_film

from monai_landmark.data.annotations import Annotation
from monai_landmark.data.schema import LandmarkSchema, shipped_schemas
from monai_landmark.data.synthetic import synthesize_film
from monai_landmark.label import review
from monai_landmark.label.labels import write_label
from monai_landmark.label.privacy import pseudonym
from monai_landmark.label.review import film_frame, film_state, points_json, schema_json, short_names, worklist
from monai_landmark.label.service import LabelService, LabelSettings
from monai_landmark.results.measurements import measure_points

fastapi = pytest.importorskip("fastapi")
from monai_landmark.label.review_routes import PAGE, review_router  # noqa: E402 - needs fastapi

NODE = shutil.which("node")
HOSTILE = "<img src=x onerror=alert(1)>"


# ---- the schema and its measures -------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", shipped_schemas())
def test_short_names_are_short_and_distinct(name: str) -> None:
    schema = LandmarkSchema.load(name)
    found = short_names(schema)
    assert len(set(found)) == schema.count and max(map(len, found)) <= 6


def test_short_names_tell_alike_words_apart() -> None:
    schema = LandmarkSchema("x", "x", ("subspinale", "subnasale", "sella", "left_knee_joint", "left_knie_joint"))
    assert short_names(schema) == ["Subs", "Subn", "Sel", "LKJ1", "LKJ2"]


@pytest.mark.skipif(NODE is None, reason="Node.js is not installed")
@pytest.mark.parametrize("name", shipped_schemas())
@pytest.mark.parametrize("spacing", [(0.1, 0.15), None])
def test_the_pages_measures_are_pythons(name: str, spacing: tuple[float, float] | None) -> None:
    schema = LandmarkSchema.load(name)
    points = np.random.default_rng(3).uniform(0, 2000, (schema.count, 2))
    points[-1] = np.nan
    points[1] = points[0]  # a ray without a length, a ratio over nothing
    told = {"measures": schema_json(schema)["measures"], "points": listed(points), "spacing": spacing}
    script = f"import {{ measure }} from {json.dumps((PAGE / 'measure.js').as_uri())}; " + (
        "const told = JSON.parse(process.argv[1]); "
        "console.log(JSON.stringify(measure(told.measures, told.points, told.spacing)))"
    )
    command = [str(NODE), "--input-type=module", "-e", script, json.dumps(told)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = {key: np.nan if value is None else value for key, value in json.loads(answer.stdout).items()}
    expected = schema.measure(points) if spacing is None else measure_points(points, schema, spacing)
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-12, atol=1e-9)


def listed(points: NDArray[np.float64]) -> list[list[float] | None]:
    return [None if np.isnan(point).any() else point.tolist() for point in points]


# ---- the list of films -----------------------------------------------------------------------------------------------
def entry(referred: int | None = None, highest: float = 0.0, unit: str = "mm", **labels: Any) -> dict[str, Any]:
    score = {"mean": highest / 2, "highest": highest, "unit": unit, "model": "new", "referred": referred}
    return {"image": {"info": {"score": score, "name": "Planted^Jane.dcm"}}, "labels": labels}


def test_worklist_puts_the_most_doubtful_film_first() -> None:
    reviewed, labelled = {"info": {"status": "reviewed"}}, {"info": {}}
    objects = {
        "calm": entry(0, 2.0),
        "wide": entry(0, 9.0),
        "referred": entry(1, 3.0),
        "twice": entry(2, 2.5),
        "pixels": entry(None, 0.9, "1 - confidence"),
        "seen": entry(5, 20.0, final=reviewed),
        "slicer": entry(4, 20.0, final=labelled),
        "blank": {"image": {"info": {}}, "labels": {"original": {"info": {}}}},
    }
    rows = worklist(objects, [*objects, "of the PACS"], "old", "score")
    expected = ["twice", "referred", "wide", "calm", "pixels", "blank", "of the PACS", "seen", "slicer"]
    assert [row["id"] for row in rows] == expected
    assert [row["state"] for row in rows[-2:]] == ["reviewed", "labelled"] and rows[0]["outdated"]
    assert all(row["shown"] == pseudonym(row["id"]) for row in rows)
    assert "Planted" not in json.dumps(rows)


def test_state_of_a_film_is_not_taken_from_other_labels() -> None:
    assert film_state({"labels": {"original": {"info": {"status": "reviewed"}}}}) == "to do"
    assert film_state({"labels": {"final": {"info": {"status": HOSTILE}}}}) == "labelled"


# ---- pixels ----------------------------------------------------------------------------------------------------------
def intensities(frame: review.Frame) -> NDArray[np.float64]:
    return frame.facts["low"] + frame.facts["step"] * frame.codes.astype(np.float64)


def test_eight_bit_films_are_sent_as_they_are(tmp_path: Path) -> None:
    pixels = np.arange(60 * 40, dtype=np.uint16).reshape(60, 40) % 200
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "x.png")
    frame = film_frame(tmp_path / "x.png", (0.2, 0.1))
    np.testing.assert_array_equal(intensities(frame), pixels)
    assert frame.codes.dtype == np.uint8 and frame.facts["window"] == [0, 255]
    assert frame.facts["spacing_mm"] == [0.2, 0.1] and frame.facts["size"] == [60, 40]


def test_sixteen_bit_films_keep_every_intensity(tmp_path: Path) -> None:
    film = synthesize_film(3, (200, 216))
    Image.fromarray(film.pixels).save(tmp_path / "x.png")
    frame = film_frame(tmp_path / "x.png")
    np.testing.assert_array_equal(intensities(frame), film.pixels)
    assert frame.facts["spacing_mm"] is None and frame.facts["spacing_source"] == "none"
    black, white = np.percentile(film.pixels, (0.5, 99.5))
    assert frame.facts["window"] == pytest.approx([black, white])


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_dicom_is_sent_whole_and_shown_through_its_window(tmp_path: Path, photometric: str) -> None:
    dicom = dicom_film("CR", "1.2.1")
    dicom.PhotometricInterpretation, dicom.WindowCenter, dicom.WindowWidth = photometric, 1500, 1000
    dicom.ImageLaterality = "L"
    dicom.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    frame = film_frame(tmp_path / "x.dcm")
    stored = np.arange(80 * 50).reshape(80, 50)
    dark_first = photometric == "MONOCHROME2"
    np.testing.assert_array_equal(intensities(frame), stored if dark_first else 65535 - stored)
    expected = np.array([1000, 2000]) if dark_first else 65535 - np.array([2000, 1000])
    np.testing.assert_allclose(frame.facts["window"], expected, atol=25)  # within 2 % of the width
    assert frame.facts["side"] == "L" and frame.facts["bytes"] == 2


def test_huge_films_are_sent_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review, "MOST_PIXELS", 100)
    pixels = np.add.outer(np.arange(21), np.arange(20)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    frame = film_frame(tmp_path / "x.png")
    assert frame.facts["reduction"] == 3 and frame.facts["size"] == [21, 20] and frame.facts["sent"] == [7, 7]
    assert intensities(frame)[2, 1] == np.rint(pixels[6:9, 3:6].mean())


def test_points_keep_what_is_occluded_and_what_is_absent() -> None:
    points = np.array([(1.5, 2.25), (np.nan, np.nan), (3, 4)])
    annotation = Annotation("x", points, np.array([2, 0, 1], dtype=np.int8), ("a", "b", "c"))
    assert points_json(annotation) == [[1.5, 2.25, 2], None, [3.0, 4.0, 1]]


# ---- the routes ------------------------------------------------------------------------------------------------------
class Store:
    """A film and its label."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def json(self) -> dict[str, Any]:
        return {"objects": {"one": entry(1, 2.0)}}

    def list_images(self) -> list[str]:
        return ["one"]

    def film_path(self, film: str) -> Path:
        return self.folder / f"{film}.png"

    def get_label_uri(self, film: str, tag: str) -> str:
        return str(self.folder / f"{film}.json")


@pytest.fixture
def application(tmp_path: Path) -> Any:
    """The page's routes alone; ``state.token`` is asked for where it is set."""
    Image.fromarray(np.arange(80 * 50, dtype=np.uint8).reshape(80, 50)).save(tmp_path / "one.png")
    service = LabelService(LabelSettings(tmp_path / "model", schema="chest6"))
    store = Store(tmp_path)
    application = fastapi.FastAPI()
    application.state.token = ""

    def authorize(request: fastapi.Request) -> None:
        token = application.state.token
        if token and request.headers.get("authorization") != f"Bearer {token}":
            raise fastapi.HTTPException(status_code=401, detail="Not authenticated")

    application.include_router(review_router(service, lambda: store, "score", authorize))
    application.state.service, application.state.store = service, store
    return application


def get(application: Any, target: str, **headers: str) -> SimpleNamespace:
    """One request, without a server."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    path, _, query = target.partition("?")
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": query.encode()}
    scope |= {"headers": [(key.encode(), value.encode()) for key, value in headers.items()], "client": ("127.0.0.1", 1)}
    scope |= {"server": ("127.0.0.1", 8000), "scheme": "http", "http_version": "1.1", "root_path": "", "state": {}}
    asyncio.run(application(scope, receive, send))
    found = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return SimpleNamespace(status=sent[0]["status"], headers=found, body=body)


def test_page_runs_nothing_inline_and_nothing_from_elsewhere(application: Any) -> None:
    for name in ("", *(file.name for file in PAGE.iterdir())):
        answer = get(application, f"/review/{name}")
        assert answer.status == 200 and answer.body and answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    page = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=\"[a-z]+\.js\")|\son\w+=|\sstyle=|https?:", page)
    for script in PAGE.glob("*.js"):
        text = script.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", text), script
        assert set(re.findall(r"https?://[^\"'`]+", text)) <= {"http://www.w3.org/2000/svg"}
        assert set(re.findall(r'from "\./(\w+\.js)"', text)) <= {file.name for file in PAGE.iterdir()}


def test_page_serves_no_other_file(application: Any) -> None:
    assert get(application, "/review").headers["location"] == "/review/"
    for name in ("../review.py", "..%2Freview.py", "api/", "other.js"):
        with pytest.raises(Exception, match="no such file"):
            get(application, f"/review/{name}")


def test_data_is_for_those_who_log_in(application: Any) -> None:
    application.state.token = "secret"
    for target in ("schema", "films", "pixels?image=one", "points?image=one"):
        assert get(application, f"/review/api/{target}").status == 401
    assert get(application, "/review/").status == 200  # holds no data
    assert get(application, "/review/api/schema", authorization="Bearer secret").status == 200


def test_data_of_the_page(application: Any) -> None:
    told = json.loads(get(application, "/review/api/schema").body)
    assert told["name"] == "chest6" and told["trained"] is False and told["pairs"][0] == [3, 0]
    (row,) = json.loads(get(application, "/review/api/films").body)["films"]
    assert row["id"] == "one" and row["shown"] == pseudonym("one")
    for accepted in ("gzip, br", "identity"):
        answer = get(application, "/review/api/pixels?image=one", **{"accept-encoding": accepted})
        body = gzip.decompress(answer.body) if accepted != "identity" else answer.body
        facts = json.loads(answer.headers["film-facts"])
        assert np.frombuffer(body, np.uint8).reshape(facts["sent"])[3, 7] == (3 * 50 + 7) % 256
        assert answer.headers["cache-control"] == "no-store"


def test_labels_come_back_in_pixels(application: Any) -> None:
    store, service = application.state.store, application.state.service
    with pytest.raises(Exception, match="has no label"):
        get(application, "/review/api/points?image=one")
    points = np.array([(10.25, 20.5), (30, 21), (12, 60.125), (33, 61), (20, 40), (np.nan, np.nan)])
    label = Annotation("one", points, np.array([2, 2, 1, 2, 2, 0], dtype=np.int8), service.schema.landmarks)
    write_label(store.get_label_uri("one", "final"), label, service.film(store.film_path("one")))
    found = json.loads(get(application, "/review/api/points?image=one").body)["points"]
    assert found[2] == [12, 60.125, 1] and found[5] is None and found[0] == pytest.approx([10.25, 20.5, 2])
