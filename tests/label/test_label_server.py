"""The real MONAI Label server over HTTP, on small synthetic films: predict, correct, train, predict anew."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from PIL import Image
from pydicom import FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from monai_landmark.data.annotations import read_mrk_json
from monai_landmark.data.synthetic import synthesize_film, write_synthetic_dataset
from monai_landmark.files import file_sha256
from monai_landmark.label.slicer_save_points import send_points
from monai_landmark.results.result import LandmarkResult

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("monailabel") is None, reason="MONAI Label is not installed here; see `make label`"
    ),
]

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "bundles" / "xray_landmarks"
NAME = "Planted_Jane"  # of a patient: in a file's name and in a DICOM tag
JSON = {"Content-Type": "application/json"}
TWO_STEPS = {"max_epochs": 1, "steps_per_epoch": 2, "batch_size": 1}


class Server:
    """A running server, asked over HTTP."""

    def __init__(self, port: int, log: Path, studies: Path, models: Path) -> None:
        self.port, self.log, self.studies, self.models = port, log, studies, models
        self.address = f"http://127.0.0.1:{port}"

    def ask(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        try:
            connection.request(method, target, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def json(self, method: str, target: str, content: Any = None) -> Any:
        status, body = self.ask(method, target, b"" if content is None else json.dumps(content).encode(), JSON)
        assert status == 200, body
        return json.loads(body)

    def form(self, method: str, target: str, **fields: Any) -> tuple[int, bytes]:
        """Text fields as text, (name, bytes) as files."""
        boundary, parts = uuid.uuid4().hex, []
        for key, value in fields.items():
            name, content = value if isinstance(value, tuple) else (None, str(value).encode())
            file = "" if name is None else f'; filename="{name}"'
            parts.append(
                f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"{file}\r\n\r\n'.encode() + content
            )
        body = b"\r\n".join([*parts, f"--{boundary}--\r\n".encode()])
        return self.ask(method, target, body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})

    def infer(self, film: str) -> dict[str, Any]:
        status, body = self.form("POST", f"/infer/landmarks?image={quote(film)}&output=json", params="{}")
        assert status == 200, body
        answer: dict[str, Any] = json.loads(body)
        return answer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("label")
    studies, models = folder / "studies", folder / "models"
    studies.mkdir()
    write_films(studies)
    train_two_steps(folder, models)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--studies", studies, "--model-dir", models, "--bundle", BUNDLE, "--device", "cpu", "--port", port]
    command = [sys.executable, "-m", "monai_landmark", "label", "start", *map(str, words), "--max-upload-mib", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(folder)}
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


def write_films(folder: Path) -> None:
    """Four PNG films without spacing and a DICOM film with one."""
    for number in range(4):
        pixels = synthesize_film(number, (200, 216)).pixels
        Image.fromarray((pixels >> 8).astype(np.uint8)).save(folder / f"film{number}.png")
    film = synthesize_film(9, (200, 216))
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dicom = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dicom.SOPClassUID, dicom.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dicom.Modality, dicom.PhotometricInterpretation, dicom.PatientName = "CR", "MONOCHROME2", "Planted^Jane"
    dicom.Rows, dicom.Columns = film.pixels.shape
    dicom.SamplesPerPixel, dicom.PixelRepresentation, dicom.BitsAllocated, dicom.BitsStored = 1, 0, 16, 16
    dicom.HighBit, dicom.PixelSpacing = 15, list(film.spacing_mm)
    dicom.PixelSpacingCalibrationType = "FIDUCIAL"
    dicom.PixelData = film.pixels.astype("<u2").tobytes()
    dicom["PixelData"].VR = "OW"
    dicom.save_as(folder / f"{NAME}.dcm", enforce_file_format=True)


def train_two_steps(folder: Path, models: Path) -> None:
    """The model that the server starts with."""
    write_synthetic_dataset(folder / "synthetic", training=2, test=0, unlabelled=0, size=(200, 216))
    words: dict[str, Any] = {"dataset_dir": folder / "synthetic", "output_dir": models, "bundle_root": BUNDLE}
    words |= {"architecture": "diffusion-tiny", "spatial_size": "[64,64]", "epochs": 1, "steps_per_epoch": 2}
    words |= {"batch_size": 1, "precision": "float32"}
    options = [word for key, value in words.items() for word in (f"--{key}", str(value))]
    config = str(BUNDLE / "configs" / "train.yaml")
    command = [sys.executable, "-m", "monai.bundle", "run", "train", "--config_file", config, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=900)


def wait_until_up(server: Server, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, server.log.read_text()
        try:
            if server.ask("GET", "/info/")[0] == 200:
                return
        except OSError:
            time.sleep(1)
    pytest.fail(f"the server did not start: {server.log.read_text()}")


def fingerprint(folder: Path) -> dict[str, int]:
    """Films as they are, by name and time of their last change."""
    return {str(file): file.stat().st_mtime_ns for file in folder.iterdir() if file.suffix in (".png", ".dcm")}


def test_info_offers_a_detection_task(server: Server) -> None:
    info = server.json("GET", "/info/")
    assert info["models"]["landmarks"]["type"] == "detection" and "landmarks" in info["trainers"]
    assert set(info["strategies"]) == {"random", "highest_expected_error", "diverse", "mixed"}
    assert set(info["scoring"]) == {"expected_error"} and info["datastore"]["total"] >= 5


@pytest.mark.parametrize("film", ["film0", NAME])
def test_prediction_is_markups_with_the_whole_result(server: Server, film: str, tmp_path: Path) -> None:
    result = LandmarkResult.from_dict(server.infer(film)["result"])
    assert result.film == film and np.isfinite(result.points_px).all()
    assert (result.expected_error_mm is not None) == (film == NAME)  # a PNG has no millimeters
    status, body = server.form("POST", f"/infer/landmarks?image={film}&output=image", params="{}")
    assert status == 200
    file = tmp_path / f"{film}.mrk.json"
    file.write_bytes(body)
    shown = read_mrk_json(file, spacing=result.spacing_mm or (1.0, 1.0))[0]
    np.testing.assert_allclose(shown.landmarks, result.points_px, atol=1e-6)
    status, body = server.form("POST", f"/infer/landmarks?image={film}", params="{}")
    assert status == 200 and b'"markups"' in body and b'"guarantee"' in body


def test_a_film_that_is_sent_is_predicted_and_not_kept(server: Server) -> None:
    before = fingerprint(server.studies)
    film = (server.studies / "film1.png").read_bytes()
    status, body = server.form("POST", "/infer/landmarks?output=json", params="{}", file=("Planted_Jane.png", film))
    assert status == 200 and json.loads(body)["result"]["film"] == "film"
    assert fingerprint(server.studies) == before


def test_a_film_that_is_kept_gets_an_id_of_the_servers_own(server: Server) -> None:
    film = (server.studies / "film1.png").read_bytes()
    status, body = server.form("PUT", "/datastore/image?image=Planted_Jane_2", file=("Planted_Jane_2.png", film))
    kept = json.loads(body)["image"]
    assert status == 200 and kept.startswith("film-")
    assert (server.studies / f"{kept}.png").read_bytes() == film
    assert server.infer(kept)["result"]["film"] == kept


def test_correct_train_predict_anew(server: Server, tmp_path: Path) -> None:
    before = server.infer("film2")["result"]
    for number in range(2):  # in the package's own form, one of them once more with 3D Slicer's script
        truth = synthesize_film(number, (200, 216)).landmarks_px
        names = LandmarkResult.from_dict(server.infer(f"film{number}")["result"]).names
        rows = [None if np.isnan(row).any() else row.tolist() for row in truth]
        film = {"film": f"film{number}", "landmarks": dict(zip(names, rows, strict=True))}
        sent = json.dumps({"films": [film]}).encode()
        status, body = server.form("PUT", f"/datastore/label?image=film{number}&tag=final", label=("x.json", sent))
        assert status == 200, body
    _, markups = server.ask("GET", "/datastore/label?label=film1&tag=final")
    (tmp_path / "edited.mrk.json").write_bytes(markups)
    assert send_points(server.address, "film1", str(tmp_path / "edited.mrk.json"))["image"] == "film1"
    assert server.ask("GET", "/datastore/label?label=film1&tag=final")[1] == markups
    kept = read_mrk_json(server.studies / "labels" / "final" / "film0.json", spacing=(1.0, 1.0))[0]
    np.testing.assert_allclose(kept.landmarks, synthesize_film(0, (200, 216)).landmarks_px, atol=1e-6)

    old = (server.models / "model.safetensors").read_bytes()
    server.json("POST", "/train/landmarks", TWO_STEPS)
    task = wait_for_training(server)
    assert task["status"] == "DONE", task
    assert any("step 2 of 2: loss" in line for line in task["details"])
    after = server.infer("film2")["result"]
    assert after["model"]["sha256"] != before["model"]["sha256"] and after["landmarks"] != before["landmarks"]
    assert server.json("GET", "/info/")["train_stats"]["landmarks"]["round"] == "0001"
    assert (server.models / "model.safetensors").read_bytes() == old
    card = json.loads((server.models / "rounds" / "0001" / "model.json").read_text())
    assert sorted(card["films"]) == sorted(file_sha256(server.studies / f"film{number}.png") for number in range(2))


def wait_for_training(server: Server, target: str = "/train/") -> dict[str, Any]:
    for _ in range(900):
        task: dict[str, Any] = server.json("GET", target)
        assert str(server.studies.parent) not in json.dumps(task)
        if task["status"] not in ("SUBMITTED", "RUNNING"):
            return task
        time.sleep(1)
    pytest.fail("the task did not end")


def test_a_scoring_tells_its_progress_and_no_path(server: Server) -> None:
    server.json("POST", "/scoring/expected_error", {})
    task = wait_for_training(server, "/scoring/")
    assert task["status"] == "DONE" and any("films scored" in line for line in task["details"])


def test_a_training_that_fails_says_why_and_no_path(server: Server) -> None:
    label = server.studies / "labels" / "final" / "film5.json"
    (server.studies / "film5.png").write_bytes((server.studies / "film3.png").read_bytes())
    points = [[5.0 + number, 9.0] for number in range(len(server.json("GET", "/info/")["labels"]))]
    sent = json.dumps({"films": [{"film": "film5", "landmarks": points}]}).encode()
    for _ in range(60):  # the server watches the folder
        if "film5" in server.json("GET", "/datastore/?output=all")["objects"]:
            break
        time.sleep(1)
    assert server.form("PUT", "/datastore/label?image=film5&tag=final", label=("x.json", sent))[0] == 200
    label.write_text("{}")
    server.json("POST", "/train/landmarks", TWO_STEPS)
    task = wait_for_training(server)
    assert task["status"] == "ERROR" and any(line.startswith("failed: ") for line in task["details"]), task
    assert server.form("DELETE", "/datastore/label?id=film5&tag=final")[0] == 200


def test_batch_and_scores(server: Server) -> None:
    wanted = {"device": "cuda", "label_tag": "original"}  # what a client sends by default; there may be no GPU
    answer = server.json("POST", "/batch/infer/landmarks?images=all&run_sync=true", wanted)
    assert {"film0", "film3", NAME} <= set(answer) and answer[NAME]["unit"] == "mm"
    assert answer[NAME]["highest"] >= answer[NAME]["mean"] > 0
    assert server.ask("GET", "/datastore/label?label=film3&tag=original")[0] == 200
    assert server.json("POST", "/scoring/expected_error?run_sync=true", {})["failed"] == 0
    assert server.json("GET", "/datastore/image/info?image=film3")["landmark_score"]["model"]


@pytest.mark.parametrize("strategy", ["random", "highest_expected_error", "diverse", "mixed"])
def test_each_strategy_offers_a_film_without_a_label(server: Server, strategy: str) -> None:
    films = server.json("GET", "/datastore/?output=all")["objects"]
    unlabeled = {film for film, entry in films.items() if "final" not in entry["labels"]}
    offered = server.json("POST", f"/activelearning/{strategy}", {"seed": 3})
    assert offered["id"] in unlabeled and offered["path"].startswith(str(server.studies))


FILM0 = "/datastore/label?image=film0&tag=final"


@pytest.mark.parametrize(
    ("status", "method", "target", "fields"),
    [
        (404, "POST", "/infer/landmarks?image=nobody", {"params": "{}"}),
        (400, "POST", "/infer/landmarks?image=..%2F..%2Fetc%2Fpasswd", {"params": "{}"}),
        (400, "POST", "/infer/landmarks?image=film0", {"params": '{"image": "/etc/passwd"}'}),
        (400, "POST", "/infer/landmarks?image=film0", {"params": '{"save_label": true, "label_tag": "../../x"}'}),
        (400, "POST", "/infer/landmarks?image=film0", {"params": "{wrong"}),
        (400, "POST", "/infer/landmarks?image=film0", {"params": "[1]"}),
        (400, "POST", "/infer/landmarks", {"params": "{}"}),
        (404, "POST", "/infer/another?image=film0", {"params": "{}"}),
        (422, "POST", "/infer/landmarks", {"file": ("x.png", b"no film")}),
        (422, "POST", "/infer/landmarks", {"file": ("x.zip", b"PK\x03\x04")}),
        (400, "PUT", "/datastore/image?image=x", {"file": ("x.png", b"no film")}),
        (400, "PUT", "/datastore/image?image=x", {"file": ("x.exe", b"MZ")}),
        (400, "PUT", "/datastore/image?image=..%2Fx", {"file": ("x.png", b"no film")}),
        (413, "PUT", "/datastore/image?image=x", {"file": ("x.png", b"\x89PNG" + b"x" * 2**20)}),
        (400, "PUT", FILM0, {"label": ("x.json", b'{"markups": 3}')}),
        (400, "PUT", FILM0, {"label": ("x.json", b"<script>alert(1)</script>")}),
        (400, "PUT", "/datastore/label?image=film0&tag=..%2F..%2Fx", {"label": ("x.json", b"{}")}),
        (404, "PUT", "/datastore/label?image=nobody&tag=final", {"label": ("x.json", b"{}")}),
        (422, "PUT", FILM0, {}),
        (405, "DELETE", "/datastore/image?id=film0", {}),
        (404, "PUT", "/session/", {"files": ("x.zip", b"PK\x03\x04")}),
        (404, "PUT", "/model/landmarks", {"file": ("x.pt", b"x")}),
    ],
)
def test_bad_requests_get_a_sentence_and_write_nothing(
    server: Server, status: int, method: str, target: str, fields: dict[str, Any]
) -> None:
    before = sorted(map(str, server.studies.parent.rglob("*")))
    found, body = server.form(method, target, **fields)
    assert found == status, body
    assert json.loads(body)["detail"] and b"Traceback" not in body and str(server.studies).encode() not in body
    assert sorted(map(str, server.studies.parent.rglob("*"))) == before


@pytest.mark.parametrize(
    "body", [b"[1", b'{"epochs": "many"}', b'{"start": "/etc/passwd"}', b'{"start": "pretrained"}']
)
def test_bad_settings_of_a_training_are_refused(server: Server, body: bytes) -> None:
    status, answer = server.ask("POST", "/train/landmarks", body, JSON)
    assert status == 400 and json.loads(answer)["detail"]


def test_twenty_clients_at_once(server: Server) -> None:
    films = [f"film{number % 4}" for number in range(40)]
    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(server.infer, films))
    assert [answer["result"]["film"] for answer in answers] == films


def test_other_sites_and_names_are_refused(server: Server) -> None:
    assert server.ask("GET", "/info/", headers={"Origin": "http://page.example"})[0] == 403
    assert server.ask("GET", "/info/", headers={"Host": "rebound.example"})[0] == 403


def test_log_names_no_patient_and_no_film(server: Server) -> None:
    query = urlencode({"image": "Planted_John"})
    assert server.form("POST", f"/infer/landmarks?{query}", params="{}")[0] == 404
    server.infer(NAME)
    log = server.log.read_text()
    assert "predicted in" in log
    assert not [word for word in ("Planted", "Jane", "John", "film0", ".png", ".dcm") if word in log]
