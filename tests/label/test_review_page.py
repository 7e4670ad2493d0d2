"""The review page in headless Chromium, in front of the real server: look, drag, nudge, save, reload, train."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from test_label_server import BUNDLE, NAME, ROOT, TWO_STEPS, Server, train_two_steps, wait_for_training, wait_until_up
from test_label_server import write_films as write_plain_films

from monai_landmark.data.annotations import read_mrk_json
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.data.synthetic import synthesize_film
from monai_landmark.label.privacy import pseudonym
from monai_landmark.results.measurements import measure_points

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HAVE = {name: importlib.util.find_spec(name) is not None for name in ("monailabel", "playwright")}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HAVE["monailabel"], reason="MONAI Label is not installed here; see `make label`"),
    pytest.mark.skipif(not HAVE["playwright"], reason="playwright is not installed here; see `make test-label`"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]

SCHEMA = LandmarkSchema.load("synthetic")
HOSTILE = "<img src=x onerror=window.hit=1>"
SALT = "of this test"
SIZE = (200, 216)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("review")
    studies, models = folder / "studies", folder / "models"
    studies.mkdir()
    write_plain_films(studies)
    shutil.copyfile(studies / "film3.png", studies / f"{HOSTILE}.png")
    dicom = dcmread(studies / f"{NAME}.dcm")
    dicom.PatientName, dicom.ImageLaterality = f"{HOSTILE}^{NAME}", "R"
    dicom.save_as(studies / f"{NAME}.dcm")
    train_two_steps(folder, models)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--studies", studies, "--model-dir", models, "--bundle", BUNDLE, "--device", "cpu", "--port", port]
    command = [sys.executable, "-m", "monai_landmark", "label", "start", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(folder), "MONAI_LANDMARK_LOG_SALT": SALT}
    log = folder / "server.log"
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    try:
        running = Server(port, log, studies, models)
        wait_until_up(running, process)
        yield running
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = {"args": ["--no-sandbox"], "timeout": 120_000}
        with playwright.chromium.launch(executable_path=CHROMIUM, **options) as running:
            yield running


class Reviewer:
    """A person at the page."""

    def __init__(self, browser: Any, server: Server, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
        self.page, self.server, self.errors, self.dialogs = self.context.new_page(), server, [], []
        self.page.set_default_timeout(120_000)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", self._answer)

    def _answer(self, dialog: Any) -> None:
        self.dialogs.append(dialog.type)
        dialog.accept()

    def films(self) -> None:
        self.page.goto(f"{self.server.address}/review/")
        self.page.wait_for_selector(".film_link, #films_none:not([hidden])")

    def open(self, film: str) -> None:
        self.films()
        self.page.locator('#filter input[value="all"]').check(force=True)
        self.page.locator(f'.film_link[href="#{self.shown(film)}"]').click()
        self.ready()

    def ready(self) -> None:
        """The film is there, and its landmarks."""
        self.page.wait_for_selector("#list li")
        self.page.wait_for_selector("#wait", state="hidden")

    @staticmethod
    def shown(film: str) -> str:
        os.environ["MONAI_LANDMARK_LOG_SALT"] = SALT
        return pseudonym(film)

    def choose(self, index: int) -> None:
        self.page.locator(f"#landmark_{index}").click()
        self.page.locator("#canvas").focus()

    def place(self) -> NDArray[np.float64]:
        """Of the chosen landmark."""
        found = self.page.locator("#chosen_place")
        return np.array([float(found.get_attribute(f"data-{axis}") or "nan") for axis in "xy"])

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def on_screen(self) -> tuple[float, float]:
        """Where the chosen landmark is drawn, in the page."""
        x, y = self.page.evaluate(
            """async () => {
                const film = (await import("/review/film.js")).current();
                const box = document.getElementById("canvas").getBoundingClientRect();
                const [x, y] = film.view.toScreen(...film.points.values[film.chosen]);
                return [x + box.left, y + box.top];
            }"""
        )
        return x, y

    def zoom(self) -> float:
        return float(self.page.evaluate('async () => (await import("/review/film.js")).current().view.zoom'))

    def state(self) -> str:
        return str(self.page.locator("#film_state").inner_text())

    def save(self) -> None:
        self.page.click("#save")
        self.page.wait_for_selector('#film_state[data-state="reviewed"]')


@pytest.fixture
def reviewer(browser: Any, server: Server) -> Iterator[Reviewer]:
    person = Reviewer(browser, server)
    yield person
    assert not person.errors
    person.context.close()


def send_label(server: Server, film: str, points: NDArray[np.float64]) -> None:
    """As another client does."""
    rows = [None if np.isnan(row).any() else row.tolist() for row in points]
    label = {"films": [{"film": film, "landmarks": dict(zip(SCHEMA.landmarks, rows, strict=True))}]}
    target = f"/datastore/label?image={film}&tag=final"
    status, body = server.form("PUT", target, label=("x.json", json.dumps(label).encode()))
    assert status == 200, body


def kept(server: Server, film: str, spacing: tuple[float, float] = (1.0, 1.0)) -> NDArray[np.float64]:
    found = read_mrk_json(server.studies / "labels" / "final" / f"{film}.json", SCHEMA, spacing=spacing)[0]
    return found.landmarks


def status(server: Server, film: str) -> Any:
    entry = server.json("GET", "/datastore/?output=all")["objects"][film]
    return entry["labels"].get("final", {}).get("info", {}).get("status")


def test_drag_nudge_undo_save_reload_train(server: Server, reviewer: Reviewer) -> None:
    page = reviewer.page
    reviewer.open("film0")
    assert reviewer.state() == "To do"
    reviewer.choose(5)
    start, zoom = reviewer.place(), reviewer.zoom()
    x, y = reviewer.on_screen()
    page.mouse.move(x + 2, y - 1)
    page.mouse.down()
    page.mouse.move(x - 28, y + 39, steps=4)
    page.mouse.up()
    dragged = reviewer.place()
    np.testing.assert_allclose(dragged - start, np.array([-30, 40]) / zoom, atol=1.5 / zoom)
    reviewer.keys("ArrowRight", "Shift+ArrowDown", "Alt+ArrowLeft")
    np.testing.assert_allclose(reviewer.place() - dragged, [0.9, 10], atol=1e-6)
    reviewer.keys("Control+z")
    np.testing.assert_allclose(reviewer.place() - dragged, [1, 10], atol=1e-6)
    reviewer.keys("Control+z", "Control+z", "Control+z")
    np.testing.assert_array_equal(reviewer.place(), start)
    assert page.locator("#undo").is_disabled() and reviewer.state() == "To do"
    reviewer.keys(*["Control+Shift+z"] * 3)
    moved = reviewer.place()
    assert reviewer.state() == "Not saved" and status(server, "film0") is None

    reviewer.save()
    np.testing.assert_allclose(kept(server, "film0")[5], moved, atol=1e-3)
    assert status(server, "film0") == "reviewed"
    page.reload()
    reviewer.ready()
    reviewer.choose(5)
    np.testing.assert_allclose(reviewer.place(), moved, atol=1e-3)
    assert reviewer.state() == "Reviewed" and not reviewer.dialogs
    assert page.locator("#landmark_5").get_attribute("data-kind") == "label"

    server.json("POST", "/train/landmarks", TWO_STEPS)
    assert wait_for_training(server)["status"] == "DONE"
    items = json.loads((server.models / "rounds" / "0001" / "datalist.json").read_text())["training"]
    (item,) = [item for item in items if item["id"] == "film0"]
    np.testing.assert_allclose(item["landmarks"][5], moved, atol=1e-3)


def test_measurements_are_pythons(server: Server, reviewer: Reviewer) -> None:
    film = synthesize_film(9, SIZE)
    send_label(server, NAME, film.landmarks_px)
    reviewer.open(NAME)
    assert reviewer.state() == "Labelled" and "R" in reviewer.page.locator("#film_side").inner_text()
    reviewer.choose(10)
    reviewer.keys("Shift+ArrowLeft", "Alt+ArrowUp")
    shown = reviewer.page.locator("#measures tr").evaluate_all(
        "rows => rows.map((row) => [row.dataset.measure, row.lastChild.dataset.value, row.lastChild.textContent])"
    )
    reviewer.save()
    spacing = tuple(dcmread(server.studies / f"{NAME}.dcm").PixelSpacing)
    expected = measure_points(kept(server, NAME, spacing), SCHEMA, spacing)
    assert [name for name, _, _ in shown] == list(expected)
    found = [float(value or "nan") for _, value, _ in shown]
    np.testing.assert_allclose(found, list(expected.values()), atol=1e-4)
    texts = {name: text for name, _, text in shown}
    assert texts["head_distance"].endswith(" mm") and texts["leg_inclination"].endswith("°")


def test_lengths_are_pixels_where_no_spacing_is_known(server: Server, reviewer: Reviewer) -> None:
    send_label(server, "film2", synthesize_film(2, SIZE).landmarks_px)
    reviewer.open("film2")
    assert "no pixel spacing" in reviewer.page.locator("#spacing").inner_text()
    text = reviewer.page.locator('[data-measure="head_distance"] td').inner_text()
    expected = SCHEMA.measure(kept(server, "film2"))["head_distance"]
    assert text == f"{expected:.1f} px"
    assert "mm" not in reviewer.page.locator("#chosen_place").inner_text()


def test_names_that_are_html_or_patients_are_neither_run_nor_shown(server: Server, reviewer: Reviewer) -> None:
    for film in (HOSTILE, NAME):
        reviewer.open(film)
        text = reviewer.page.content() + reviewer.page.url + reviewer.page.title()
        assert "Planted" not in text and "onerror" not in text and reviewer.shown(film) in text
        assert reviewer.page.locator("img").count() == 0
    assert reviewer.page.evaluate("() => window.hit") is None and not reviewer.dialogs
    for script in ("document.body.setAttribute('onclick', '1')", "document.body.innerHTML = '<p>1</p>'"):
        with pytest.raises(Exception, match="requires 'Trusted"):  # no text can become a script or HTML
            reviewer.page.evaluate(f"() => {{ {script} }}")


def test_exchanged_sides_are_flagged_and_put_right(server: Server, reviewer: Reviewer) -> None:
    points = synthesize_film(1, SIZE).landmarks_px
    left, right = (SCHEMA.index(f"{side}_femoral_head") for side in ("left", "right"))
    points[[left, right]] = points[[right, left]]
    send_label(server, "film1", points)
    reviewer.open("film1")
    notice = reviewer.page.locator("#sides")
    assert "exchanged" in notice.inner_text()
    assert "exchanged" in reviewer.page.locator(f"#landmark_{left}").get_attribute("aria-label")
    notice.get_by_role("button", name="Exchange femoral head").click()
    assert notice.is_hidden()
    reviewer.save()
    np.testing.assert_allclose(kept(server, "film1")[[right, left]], points[[left, right]], atol=1e-3)


def test_keyboard_alone(server: Server, reviewer: Reviewer) -> None:
    page = reviewer.page
    send_label(server, "film3", synthesize_film(3, SIZE).landmarks_px)
    reviewer.films()
    page.locator('#filter input[value="to do"]').focus()
    reviewer.keys("ArrowRight", "Tab")
    for _ in range(10):
        if page.evaluate("() => document.activeElement.hash") == f"#{reviewer.shown('film3')}":
            break
        reviewer.keys("ArrowDown")
    outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"  # the focus is seen
    reviewer.keys("Enter")
    reviewer.ready()
    assert page.evaluate("() => document.activeElement.id") == "canvas"
    reviewer.keys("Tab", "n", "n", "p")
    assert page.locator('#list [aria-selected="true"]').get_attribute("id") == "landmark_2"
    assert SCHEMA.landmarks[2].replace("_", " ") in page.locator("#said").inner_text()
    reviewer.keys("x")
    assert page.locator("#landmark_2").get_attribute("data-kind") == "absent"
    reviewer.keys("x", "p", "Delete", "b")  # absent and present again; another one absent
    page.wait_for_selector("#leave[open]")
    reviewer.keys("Escape")
    assert page.locator("#film").is_visible() and reviewer.state() == "Not saved"
    page.locator("#canvas").focus()
    reviewer.keys("s")
    page.wait_for_selector('#film_state[data-state="reviewed"]')
    assert np.isnan(kept(server, "film3")[1]).all() and not np.isnan(kept(server, "film3")[2]).any()
    reviewer.keys(*["Tab"] * SCHEMA.count)
    assert page.evaluate("() => document.activeElement.id") != "canvas"  # one can leave the film with Tab
    reviewer.keys("b")
    page.wait_for_selector("#films:not([hidden])")


def test_changes_are_not_lost_by_leaving(reviewer: Reviewer, server: Server) -> None:
    page = reviewer.page
    reviewer.open("film2")
    reviewer.keys("ArrowRight")
    page.reload()
    assert reviewer.dialogs == ["beforeunload"]
    reviewer.ready()
    reviewer.choose(0)
    before = reviewer.place()
    reviewer.keys("ArrowRight")
    page.go_back()
    page.wait_for_selector("#leave[open]")
    page.click("#leave_stay")
    np.testing.assert_allclose(reviewer.place() - before, [1, 0], atol=1e-9)
    page.click("#back")
    page.click("#leave_drop")
    page.wait_for_selector("#films:not([hidden])")
    reviewer.open("film2")
    reviewer.choose(0)
    np.testing.assert_array_equal(reviewer.place(), before)


def test_regions_are_circles_of_their_millimeters(server: Server, reviewer: Reviewer) -> None:
    page = reviewer.page

    def calibrated(route: Any) -> None:
        """What a calibrated model would say."""
        answer = route.fetch()
        told = answer.json()
        told["result"]["guarantee"] = {"region_level": 0.9, "tolerance_mm": 4.0, "risk": 0.05}
        for index, landmark in enumerate(told["result"]["landmarks"]):
            landmark |= {"region_radius_mm": 20.0 if index == 3 else None, "refer": index == 3}
            landmark |= {"x_px": 108.0 if index == 3 else 5.0, "y_px": 100.0 if index == 3 else 5.0}
        route.fulfill(response=answer, json=told)

    page.route("**/infer/**", calibrated)
    send_label(server, NAME, synthesize_film(9, SIZE).landmarks_px)
    server.ask("DELETE", f"/datastore/label?id={NAME}&tag=final")
    reviewer.open(NAME)
    assert page.locator("#landmark_3").get_attribute("data-kind") == "refer"
    assert page.locator("#landmark_3").get_attribute("aria-selected") == "true"
    assert "90 %" in page.locator("#promise").inner_text()
    for _ in range(2):  # without names and with the shape of a region, then without it
        reviewer.keys("t") if _ == 0 else reviewer.keys("c")
        page.wait_for_timeout(300)
        orange = page.evaluate(
            """async () => {
                const film = (await import("/review/film.js")).current();
                const canvas = document.getElementById("canvas");
                const [x, y] = film.view.toScreen(108, 100);
                const radius = (20 / film.spacing[1]) * film.view.scale[0];
                const context = canvas.getContext("2d");
                const hits = (away) => [...Array(180).keys()].filter((step) => {
                    const angle = (step * Math.PI) / 90;
                    const [at, on] = [x + away * Math.cos(angle), y + away * Math.sin(angle)].map(Math.round);
                    const [red, , blue] = context.getImageData(at, on, 1, 1).data;
                    return red - blue > 60;
                }).length;
                return [hits(radius), hits(radius * 0.8), hits(radius * 1.2)];
            }"""
        )
        assert orange[0] > 60 if _ == 0 else orange[0] == 0
        assert orange[1] == 0 and orange[2] == 0


def test_window_zoom_and_pan(reviewer: Reviewer, server: Server) -> None:
    page = reviewer.page
    reviewer.open("film2")
    box = page.locator("#canvas").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    level, zoom = float(page.locator("#level").input_value()), reviewer.zoom()
    gray = (
        "() => { const c = document.getElementById('canvas'); "
        "return c.getContext('2d').getImageData(c.width / 2 + 40, c.height / 2 + 3, 1, 1).data[0]; }"
    )
    page.wait_for_timeout(300)
    bright = page.evaluate(gray)
    page.mouse.move(*middle)
    page.mouse.down(button="right")
    page.mouse.move(middle[0], middle[1] + 300, steps=3)
    page.mouse.up(button="right")
    page.wait_for_timeout(300)
    assert float(page.locator("#level").input_value()) > level and page.evaluate(gray) < bright
    reviewer.keys("w", "i")
    page.wait_for_timeout(300)
    assert abs(page.evaluate(gray) - (255 - bright)) <= 1
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(300)
    assert reviewer.zoom() > 1.5 * zoom
    reviewer.choose(0)
    x, _ = reviewer.on_screen()
    reviewer.keys("Control+ArrowRight")
    assert reviewer.on_screen()[0] == pytest.approx(x - 80, abs=1)
    reviewer.keys("0")
    page.wait_for_timeout(300)
    assert reviewer.zoom() == pytest.approx(zoom)


def test_touch_on_a_small_screen(browser: Any, server: Server) -> None:
    send_label(server, "film2", synthesize_film(2, SIZE).landmarks_px)
    screen = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    reviewer = Reviewer(browser, server, **screen)
    page = reviewer.page
    reviewer.open("film2")
    sizes = page.locator("#film button:visible, #film select:visible, #list li").evaluate_all(
        "found => found.map((one) => [one.id, one.offsetWidth, one.offsetHeight])"
    )
    assert len(sizes) > 30 and not [one for one in sizes if min(one[1:]) < 44]
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    reviewer.choose(4)
    start, zoom, (x, y) = reviewer.place(), reviewer.zoom(), reviewer.on_screen()
    client = reviewer.context.new_cdp_session(page)

    def touch(kind: str, *fingers: tuple[float, float]) -> None:
        points = [{"x": across, "y": down, "id": number} for number, (across, down) in enumerate(fingers)]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (x + 6, y + 6))
    for step in range(1, 5):
        touch("touchMove", (x + 6 + 5 * step, y + 6))
    touch("touchEnd")
    np.testing.assert_allclose(reviewer.place() - start, [20 / zoom, 0], atol=0.6 / zoom)
    box = page.locator("#canvas").bounding_box()
    corner = box["x"] + 30, box["y"] + 30
    touch("touchStart", corner, (corner[0] + 60, corner[1]))
    touch("touchMove", corner, (corner[0] + 120, corner[1]))
    touch("touchEnd")
    assert reviewer.zoom() == pytest.approx(2 * zoom, rel=0.05)
    dragged = reviewer.place()
    for button, moved in (("#nudge_right", [1, 0]), ("#undo", [0, 0])):
        page.locator(button).tap()
        page.wait_for_timeout(1000)  # the browser makes a click of it
        np.testing.assert_allclose(reviewer.place() - dragged, moved, atol=1e-9)
    assert not reviewer.errors
    reviewer.context.close()


def test_users_who_must_log_in_are_asked(server: Server, reviewer: Reviewer) -> None:
    """The server's own log-in needs Keycloak; here the browser is answered as it would be."""
    page = reviewer.page

    def data(route: Any) -> None:
        if route.request.headers.get("authorization") == "Bearer good":
            return route.continue_()
        return route.fulfill(status=401, json={"detail": "Not authenticated"})

    def token(route: Any) -> None:
        right = "username=jo&password=secret" in (route.request.post_data or "")
        route.fulfill(status=200 if right else 400, json={"access_token": "good", "token_type": "bearer"})

    page.route("**/review/api/**", data)
    page.route("**/auth/token", token)
    page.goto(f"{server.address}/review/")
    for password in ("wrong", "secret"):
        page.fill("#user", "jo")
        page.fill("#password", password)
        page.click("#sign_in button")
        if password == "wrong":
            page.wait_for_selector("#sign_in_problem:not(:empty)")
    page.wait_for_selector("#films_list a, #films_none:not([hidden])")


def test_pages_of_other_sites_get_no_films(server: Server) -> None:
    for headers in ({"Origin": "http://page.example"}, {"Host": "rebound.example"}):
        for target in ("/review/", "/review/api/films", "/review/api/pixels?image=film0"):
            assert server.ask("GET", target, headers=headers)[0] == 403
    assert server.ask("GET", "/review/api/pixels?image=..%2Fx")[0] == 400
    assert server.ask("GET", "/review/api/pixels?image=nobody")[0] == 404
    assert server.ask("POST", "/review/api/films")[0] == 405
    assert server.ask("GET", "/review/../app.py")[0] == 404
    Image.open(server.studies / "film0.png").close()  # the films are as they were
