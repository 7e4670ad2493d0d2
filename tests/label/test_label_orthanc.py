"""A real PACS behind the real server: Orthanc with its DICOMweb plugin, both on loopback (Debian: orthanc-dicomweb)."""

from __future__ import annotations

import http.client
import importlib.util
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import FileDataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)
from test_label_server import BUNDLE, JSON, ROOT, TWO_STEPS, Server, wait_for_training, wait_until_up

from monai_landmark.data.annotations import read_mrk_json
from monai_landmark.data.synthetic import synthesize_film

ORTHANC = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
FOLDERS = ("/usr/share/orthanc/plugins", "/usr/local/share/orthanc/plugins", "/usr/lib/orthanc/plugins")
PLUGIN = next((file for folder in FOLDERS for file in Path(folder).glob("libOrthancDicomWeb.so*")), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("monailabel") is None, reason="MONAI Label is not installed here; see `make label`"
    ),
    pytest.mark.skipif(
        ORTHANC is None or PLUGIN is None,
        reason="Orthanc with its DICOMweb plugin is not installed here; on Debian: apt install orthanc-dicomweb",
    ),
]

KINDS = {"CR": ComputedRadiographyImageStorage, "DX": DigitalXRayImageStorageForPresentation, "CT": CTImageStorage}
MODALITY = {0: "CR", 1: "DX", 2: "DX", 3: "CT"}  # of each film; number 2 is compressed
SIZE = (200, 216)


def series(number: int) -> str:
    return f"1.2.826.0.1.3680043.8.498.{number + 1}"


def dicom(number: int) -> bytes:
    """A synthetic film as a modality would send it, with a spacing that was calibrated."""
    film, meta = synthesize_film(number, SIZE), FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = KINDS[MODALITY[number]], generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    sent = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    sent.SOPClassUID, sent.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    sent.PatientName, sent.PatientID, sent.StudyInstanceUID = "Planted^Jane", "Planted1", f"{series(number)}.9"
    sent.SeriesInstanceUID, sent.Modality = series(number), MODALITY[number]
    sent.Rows, sent.Columns, sent.PhotometricInterpretation = *SIZE, "MONOCHROME2"
    sent.SamplesPerPixel, sent.PixelRepresentation, sent.BitsAllocated, sent.BitsStored = 1, 0, 16, 16
    sent.HighBit, sent.PixelSpacing, sent.PixelSpacingCalibrationType = 15, list(film.spacing_mm), "FIDUCIAL"
    sent.PixelData = film.pixels.astype("<u2").tobytes()
    sent["PixelData"].VR = "OW"
    if number == 2:
        sent.compress(RLELossless, generate_instance_uid=False)
    buffer = io.BytesIO()
    sent.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


class Pacs:
    """A running Orthanc."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, target: str, body: bytes = b"") -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, target, body)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")
        finally:
            connection.close()

    def changes(self) -> int:
        """How often anything was stored in it, changed or removed; that all is quiet (``Stable...``) is no change."""
        seen = self.ask("GET", "/changes?limit=1000")[1]
        assert seen["Done"]
        return sum(not change["ChangeType"].startswith("Stable") for change in seen["Changes"])


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    folder, port = tmp_path_factory.mktemp("orthanc"), free_port()
    config = {"HttpPort": port, "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "Plugins": [str(PLUGIN)]}
    config |= {"DicomServerEnabled": False, "StorageDirectory": str(folder), "IndexDirectory": str(folder)}
    (folder / "orthanc.json").write_text(json.dumps({**config, "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}))
    with running([str(ORTHANC), str(folder / "orthanc.json")], folder / "log") as process:
        found = Pacs(port)
        for _ in range(60):
            assert process.poll() is None, (folder / "log").read_text()
            try:
                if found.ask("GET", "/system")[0] == 200:
                    break
            except OSError:
                time.sleep(1)
        for number in MODALITY:
            status, answer = found.ask("POST", "/instances", dicom(number))
            assert status == 200, answer
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, pacs: Pacs) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("label"), free_port()
    words = ["--studies", f"http://127.0.0.1:{pacs.port}/dicom-web", "--model-dir", folder / "models", "--port", port]
    words += ["--bundle", BUNDLE, "--device", "cpu", "--schema", "synthetic", "--architecture", "diffusion-tiny"]
    command = [sys.executable, "-m", "monai_landmark", "label", "start", *map(str, words), "--spatial-size", "64", "64"]
    cache = str(folder / "cache")
    private = {"OMP_NUM_THREADS": "1", "HOME": str(folder), "MONAI_LABEL_DICOMWEB_CACHE_PATH": cache}
    with running(command, folder / "log", **private) as process:
        found = Server(port, folder / "log", folder / "cache", folder / "models")
        wait_until_up(found, process)
        yield found


def test_worklist_holds_the_films_and_not_the_ct(server: Server) -> None:
    shown = {row["id"] for row in server.json("GET", "/review/api/films")["films"]}
    assert shown == {series(0), series(1), series(2)}
    assert server.json("POST", "/activelearning/random", {"seed": 1})["id"] in shown
    assert server.form("POST", f"/infer/landmarks?image={series(3)}", params="{}")[0] == 404


@pytest.mark.parametrize("number", [0, 1, 2])
def test_films_come_with_their_pixels(server: Server, number: int) -> None:
    status, body = server.ask("GET", f"/review/api/pixels?image={series(number)}")
    assert status == 200, body
    codes = np.frombuffer(body, np.uint16 if len(body) == 2 * SIZE[0] * SIZE[1] else np.uint8).reshape(SIZE)
    truth = synthesize_film(number, SIZE).pixels
    assert np.corrcoef(codes.ravel().astype(float), truth.ravel().astype(float))[0, 1] > 0.999


def test_label_train_predict_and_the_pacs_stays_as_it_is(server: Server, pacs: Pacs) -> None:
    before = pacs.changes()
    names = server.json("GET", "/info/")["labels"]
    for number in (0, 1, 2):
        truth = synthesize_film(number, SIZE).landmarks_px
        rows = [None if np.isnan(row).any() else row.tolist() for row in truth]
        film = {"film": series(number), "landmarks": dict(zip(names, rows, strict=True))}
        sent = json.dumps({"films": [film]}).encode()
        status, body = server.form("PUT", f"/datastore/label?image={series(number)}&tag=final", label=("x.json", sent))
        assert status == 200, body
    kept = next(server.studies.rglob(f"labels/final/{series(0)}.json"))
    spacing = synthesize_film(0, SIZE).spacing_mm
    found = read_mrk_json(kept, spacing=spacing)[0].landmarks
    np.testing.assert_allclose(found, synthesize_film(0, SIZE).landmarks_px, atol=1e-6)
    assert server.ask("POST", "/train/landmarks", json.dumps(TWO_STEPS).encode(), JSON)[0] == 200
    task = wait_for_training(server)
    assert task["status"] == "DONE" and any("step 2 of 2" in line for line in task["details"]), task
    for number in (0, 1, 2):
        result = server.infer(series(number))["result"]
        assert result["film"] == series(number) and result["original_size"] == list(SIZE)
        np.testing.assert_allclose(result["spacing_mm"], synthesize_film(number, SIZE).spacing_mm, rtol=1e-6)
        assert result["spacing_source"] == "calibrated"
    assert pacs.changes() == before
    assert "Planted" not in server.log.read_text()
