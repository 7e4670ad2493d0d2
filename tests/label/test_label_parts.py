"""The parts of the label server that need no MONAI Label: ids, labels, rounds, strategies, the guard, the log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from monai_landmark.apps.cli import main
from monai_landmark.data.annotations import Annotation, write_mrk_json, write_plain_json
from monai_landmark.data.reader import read_film
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import ConfigurationError, FilmError, WeightsError
from monai_landmark.label.checks import RequestError, answer, check_id, check_tag, new_id, whole_number
from monai_landmark.label.guard import Guard, is_loopback, refuse_public_host
from monai_landmark.label.labels import datalist_item, read_label, write_label
from monai_landmark.label.privacy import LOGGER, PrivateLog, pseudonym
from monai_landmark.label.rounds import ModelRounds
from monai_landmark.label.server import write_app
from monai_landmark.label.service import LabelService, LabelSettings, film_score
from monai_landmark.label.strategies import STRATEGIES, next_film
from monai_landmark.results.files import save_results, write_markups
from monai_landmark.results.result import LandmarkResult

SCHEMA = LandmarkSchema.load("chest6")
POINTS = np.array([(10.25, 20.5), (30, 21), (12, 60.125), (33, 61), (20, 40), (21, 70)])


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "one.png"
    Image.fromarray(np.arange(80 * 50, dtype=np.uint8).reshape(80, 50)).save(path)
    return path


def annotation(points: NDArray[np.float64] = POINTS, film: str = "one") -> Annotation:
    seen = np.where(np.isnan(points[:, 0]), 0, 2).astype(np.int8)
    return Annotation(film, points, seen, SCHEMA.landmarks)


def result(film: str = "one", **values: Any) -> LandmarkResult:
    return LandmarkResult(film, (80, 50), SCHEMA.landmarks, POINTS, schema=SCHEMA.name, **values)


# ---- ids, tags, numbers ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["film-1", "Ärztin 7", "1.2.840.10008.1", pytest.param(new_id(), id="new")])
def test_ids_of_films_are_taken(text: str) -> None:
    assert check_id(text) == text


@pytest.mark.parametrize("text", ["", "..", "../x", "a/b", "a\\b", "a..b", ".hidden", "C:x", "a\0b", "a\nb", "x" * 201])
def test_ids_that_lead_out_of_the_folder_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="not an id"):
        check_id(text)


@pytest.mark.parametrize("text", ["", "a/b", "..", "a b", "x" * 41])
def test_tags_are_names_only(text: str) -> None:
    assert check_tag("final") == "final"
    with pytest.raises(RequestError):
        check_tag(text)


@pytest.mark.parametrize("value", [0, 11, -1, True, 2.5, "3", None])
def test_numbers_stay_within_limits(value: Any) -> None:
    assert whole_number({}, "epochs", 7, 10) == 7
    with pytest.raises(RequestError):
        whole_number({"epochs": value}, "epochs", 7, 10)


def test_answers_name_no_path_and_no_value() -> None:
    status, sentence = answer(FilmError("is broken", file="/secret/Doe_Jane.dcm", value="Doe", action="send another"))
    assert status == 422 and sentence == "is broken; what to do: send another"
    assert answer(RuntimeError("Doe"))[0] == 500 and "Doe" not in answer(RuntimeError("Doe"))[1]


# ---- labels ----------------------------------------------------------------------------------------------------------
def test_markups_with_a_spacing_come_back_in_pixels(film: Path, tmp_path: Path) -> None:
    shown = read_film(film, (0.2, 0.1))
    file = write_mrk_json(tmp_path / "x.mrk.json", annotation(), spacing=(0.2, 0.1))
    found = read_label(file, "one", shown, SCHEMA)
    np.testing.assert_allclose(found.landmarks, POINTS, atol=1e-9)
    kept = json.loads(write_label(tmp_path / "kept.json", found, shown).read_text())
    assert kept["markups"][0]["controlPoints"][0]["position"] == pytest.approx([1.025, 4.1, 0])


@pytest.mark.parametrize("kind", ["markups", "result", "plain"])
def test_each_form_of_label_becomes_an_item_to_train_on(kind: str, film: Path, tmp_path: Path) -> None:
    points = POINTS.copy()
    points[5] = np.nan
    sent, kept = tmp_path / "sent.json", tmp_path / "kept.json"
    if kind == "plain":
        write_plain_json(sent, [annotation(points)])
    else:
        predicted = LandmarkResult("other", (80, 50), SCHEMA.landmarks, points, schema=SCHEMA.name)
        {"markups": write_markups, "result": save_results}[kind](predicted, sent)
    shown = read_film(film)
    write_label(kept, read_label(sent, "one", shown, SCHEMA), shown)
    item = datalist_item("one", film, kept, SCHEMA)
    assert item["landmarks"] == [*POINTS[:5].tolist(), None] and item["visibility"] == [2] * 5 + [0]
    assert item["size"] == [80, 50] and item["spacing"] is None and item["spacing_source"] == "none"


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[]",
        "{}",
        '{"markups": []}',
        '{"markups": [{"type": "ROI"}]}',
        '{"films": [{"film": "another", "landmarks": [[1, 2]]}]}',
        '{"films": [{"film": "one", "landmarks": [null, null, null, null, null, null]}]}',
        '{"films": [{"film": "one", "landmarks": [[1, 2], [1, 2], [1, 2], [1, 2], [1, 2], [1, 200]]}]}',
        '{"films": [{"film": "one", "landmarks": {"nose": [1, 2]}}]}',
        '{"format": "monai-landmark/landmark-result"}',
    ],
)
def test_what_is_no_label_is_refused_without_naming_a_file(content: str, film: Path, tmp_path: Path) -> None:
    sent = tmp_path / "sent.json"
    sent.write_text(content)
    with pytest.raises(RequestError) as error:
        read_label(sent, "one", read_film(film), SCHEMA)
    assert error.value.file is None and str(tmp_path) not in answer(error.value)[1]


# ---- rounds ----------------------------------------------------------------------------------------------------------
def test_rounds_replace_each_other_and_stay(tmp_path: Path) -> None:
    rounds = ModelRounds(tmp_path)
    assert rounds.current() is None
    (tmp_path / "model.safetensors").touch()
    assert rounds.current() == tmp_path
    first, second = rounds.new(), rounds.new()
    with pytest.raises(WeightsError):
        rounds.accept(first)
    for folder in (first, second):
        (folder / "model.safetensors").touch()
        rounds.accept(folder)
        assert ModelRounds(tmp_path).current() == folder
    assert (first / "model.safetensors").is_file()
    (tmp_path / "rounds" / "current").write_text("../elsewhere")
    with pytest.raises(WeightsError, match="names no model"):
        rounds.current()


# ---- service ---------------------------------------------------------------------------------------------------------
def test_service_without_a_model_says_so(tmp_path: Path, film: Path) -> None:
    with pytest.raises(ConfigurationError, match="which landmarks"):
        LabelService(LabelSettings(tmp_path / "empty"))
    service = LabelService(LabelSettings(tmp_path / "empty", schema="chest6"))
    for ask in (lambda: service.predict("one", film), lambda: service.vector("one", film)):
        with pytest.raises(RequestError, match="no trained model"):
            ask()
    with pytest.raises(RequestError, match="no film has a label"):
        service.train([], {}, print)
    with pytest.raises(RequestError, match="epochs"):
        service.train([{"id": "one"}], {"epochs": "many"}, print)
    with pytest.raises(RequestError, match="pre-trained"):
        service.train([{"id": "one"}], {"start": "pretrained"}, print)
    with pytest.raises(RequestError, match="start"):
        service.train([{"id": "one"}], {"start": "/etc/passwd"}, print)
    assert not (tmp_path / "empty" / "rounds").exists()


def test_a_training_that_fails_leaves_the_model(tmp_path: Path, film: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    (tmp_path / "bundle" / "configs" / "train.yaml").write_text("train: $@nothing\n")
    service = LabelService(LabelSettings(tmp_path, bundle=tmp_path / "bundle", schema="chest6"))
    item = {"image": str(film), "id": "one", "patient": "one", "size": [80, 50], "spacing": None}
    item |= {"spacing_source": "none", "landmarks": POINTS.tolist(), "visibility": [2] * 6}
    with pytest.raises(ConfigurationError, match="training failed"):
        service.train([item], {}, print)
    (tmp_path / "bundle" / "configs" / "train.yaml").write_text("train: \"$__import__('os').getcwd()\"\n")
    with pytest.raises(ConfigurationError, match="not opened"):
        service.train([item], {}, print)
    assert service.rounds.current() == tmp_path


def test_score_takes_expected_errors_or_what_there_is() -> None:
    known = film_score(result(spacing_mm=(0.1, 0.1), spacing_source="user", expected_error_mm=np.arange(6.0)))
    assert (known["mean"], known["highest"], known["unit"]) == (2.5, 5.0, "mm")
    unknown = film_score(result(confidence=np.array([1, 1, 1, 1, 1, 0.4])))
    assert unknown["mean"] == pytest.approx(0.1) and unknown["highest"] == pytest.approx(0.6)
    assert unknown["unit"] == "1 - confidence" and unknown["referred"] is None


# ---- strategies ------------------------------------------------------------------------------------------------------
ANGLES = {"a": 0.0, "b": 0.1, "c": 1.5, "d": 0.2}


def choose(strategy: str, scores: Mapping[str, float], films: str = "abcd", labeled: str = "", seed: int = 0) -> Any:
    def vector(name: str) -> NDArray[np.float64]:
        return np.array([np.cos(ANGLES[name]), np.sin(ANGLES[name])])

    rng = np.random.default_rng(seed)
    return next_film(strategy, films, labeled, scores, lambda film: float(ord(film)), vector, rng)


def test_strategies() -> None:
    assert {choose("random", {}, seed=seed) for seed in range(30)} == set("abcd")
    assert choose("highest_expected_error", {"a": 1.0, "b": 3.0, "c": 2.0}) == "b"
    assert choose("highest_expected_error", {}) == "d"  # none is known: asked for
    assert choose("diverse", {}, films="bcd", labeled="a") == "c"
    assert choose("mixed", {"b": 3.0, "d": 2.5}, films="bcd", labeled="a") == "d"
    assert all(choose(strategy, {}, films="") is None for strategy in STRATEGIES)
    with pytest.raises(ConfigurationError, match="no such strategy"):
        choose("best", {})


# ---- the guard -------------------------------------------------------------------------------------------------------
def ask(
    method: str,
    target: str,
    *,
    body: tuple[bytes, ...] = (b"",),
    client: str = "127.0.0.1",
    headers: Mapping[str, str] | None = None,
    **options: Any,
) -> tuple[int, Any]:
    """A request to a guarded application that reads the whole body and answers 200."""
    sent: list[Any] = []
    parts = [{"type": "http.request", "body": part, "more_body": True} for part in body]
    parts[-1]["more_body"] = False

    async def application(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"detail": "served"}'})

    async def receive() -> Any:
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    path, _, query = target.partition("?")
    known = {"host": "127.0.0.1:8000", **(headers or {})}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(key.encode(), value.encode()) for key, value in known.items()],
        "client": (client, 5000),
    }
    guard = Guard(application, lambda: {"film1"}, 100, **options)
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])["detail"]


@pytest.mark.parametrize(("parts", "unread"), [(2, 0), (9, 5)])
def test_guard_hears_a_refused_client_out_up_to_the_limit(parts: int, unread: int) -> None:
    """Or the client is cut off while it sends, and never sees why."""
    waiting = [{"type": "http.request", "body": b"x" * 30, "more_body": True} for _ in range(parts)]
    waiting[-1]["more_body"] = False

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        assert len(waiting) == unread

    scope = {"type": "http", "method": "PUT", "path": "/nowhere", "query_string": b"", "headers": [], "client": None}
    asyncio.run(Guard(receive, lambda: set(), 100)(scope, receive, send))
    assert len(waiting) == unread


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/info/"),
        ("POST", "/infer/landmarks?image=film1"),
        ("PUT", "/datastore/label?image=film1&tag=final"),
        ("PUT", "/datastore/image?image=unknown"),
        ("GET", "/datastore/label?label=film1&tag=final"),
        ("POST", "/activelearning/mixed"),
        ("DELETE", "/train/"),
    ],
)
def test_guard_lets_through(method: str, target: str) -> None:
    assert ask(method, target) == (200, "served")


@pytest.mark.parametrize(
    ("status", "method", "target"),
    [
        (404, "POST", "/infer/landmarks?image=film2"),
        (400, "POST", "/infer/landmarks?image=..%2F..%2Fetc%2Fpasswd"),
        (400, "GET", "/datastore/image?image=/etc/passwd"),
        (400, "PUT", "/datastore/image?image=../x"),
        (400, "PUT", "/datastore/label?image=film1&tag=..%2Ffinal"),
        (400, "GET", "/datastore/label?label=&tag=final"),
        (400, "POST", "/infer/landmarks?session_id=1"),
        (404, "GET", "/static/../../secret"),
        (404, "PUT", "/session/"),
        (404, "PUT", "/model/landmarks"),
        (404, "GET", "/logs/"),
        (404, "GET", "/proxy/dicom/x"),
        (404, "GET", "/ohif/x"),
        (404, "POST", "/reload"),
        (404, "POST", "/train/another"),
        (404, "POST", "/batch/infer/another"),
        (404, "GET", "/datastore/dataset"),
        (405, "DELETE", "/datastore/image?id=film1"),
    ],
)
def test_guard_refuses_with_a_sentence(status: int, method: str, target: str) -> None:
    found, sentence = ask(method, target)
    assert found == status and len(sentence.split()) > 2


def test_guard_limits_the_body_whatever_was_announced() -> None:
    assert ask("PUT", "/datastore/image", body=(b"x" * 60, b"x" * 40))[0] == 200
    assert ask("PUT", "/datastore/image", body=(b"x" * 60, b"x" * 41))[0] == 413
    assert ask("PUT", "/datastore/image", headers={"content-length": "101"})[0] == 413
    assert ask("PUT", "/datastore/image", headers={"content-length": "-1"})[0] == 413


def test_guard_looks_at_the_settings_of_a_training_before_it_is_begun() -> None:
    def check(asked: Mapping[str, Any]) -> None:
        whole_number(dict(asked), "epochs", 1, 10)

    for parts, status in (((b'{"epoc', b'hs": 3}'), 200), ((b"",), 200), ((b'{"epochs": 11}',), 400), ((b"[1",), 400)):
        assert ask("POST", "/train/landmarks", body=parts, check_training=check)[0] == status
    assert ask("POST", "/train/landmarks", body=(b"x" * 101,), check_training=check)[0] == 413


def test_guard_serves_this_machine_only_unless_users_log_in() -> None:
    assert ask("GET", "/info/", client="192.168.1.9")[0] == 403
    assert ask("GET", "/info/", client="192.168.1.9", authenticated=True)[0] == 200
    assert ask("GET", "/info/", client="::1")[0] == ask("GET", "/info/", client="::ffff:127.0.0.1")[0] == 200
    assert ask("GET", "/info/", headers={"host": "rebound.example:8000"})[0] == 403


def test_guard_serves_no_page_of_another_site() -> None:
    page = {"origin": "http://page.example"}
    assert ask("GET", "/info/", headers=page)[0] == 403
    assert ask("GET", "/info/", headers={"origin": "http://127.0.0.1:8000"})[0] == 200
    assert ask("GET", "/info/", headers=page, origins=["http://page.example"])[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.9", "::", "films.example"])
def test_public_address_needs_authentication(host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not is_loopback(host)
    refuse_public_host(host, authenticated=True)
    with pytest.raises(ConfigurationError, match="nobody would have to log in"):
        refuse_public_host(host, authenticated=False)
    words = ["label", "start", "--studies", str(tmp_path), "--model-dir", str(tmp_path), "--host", host]
    assert main(words) == 1 and "nobody would have to log in" in capsys.readouterr().err


# ---- the log ---------------------------------------------------------------------------------------------------------
def test_log_withholds_the_words_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler()
    handler.addFilter(PrivateLog())
    for logger in (logging.getLogger("monailabel.endpoints.infer"), LOGGER):
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.info("film %s predicted", pseudonym("Planted^Jane"))
        try:
            raise ValueError("Planted^Jane")
        except ValueError:
            logger.exception("Planted^Jane")
        logger.removeHandler(handler)
    logged = capsys.readouterr().err
    assert "Planted" not in logged and "Jane" not in logged
    assert f"film {pseudonym('Planted^Jane')} predicted" in logged and "ValueError" in logged
    assert pseudonym("Planted^Jane") == pseudonym("Planted^Jane") != pseudonym("Planted^John")


def test_app_folder_is_what_monai_label_looks_for(tmp_path: Path) -> None:
    assert "class XrayLandmarks(LandmarkApp, MONAILabelApp)" in (write_app(tmp_path / "app") / "main.py").read_text()
