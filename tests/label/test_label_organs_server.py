"""The real MONAI Label server on small synthetic scans: segment, save a corrected label, train, segment anew."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import nibabel
import numpy as np
import pytest
from test_label_server import ROOT, TWO_STEPS, Server, wait_for_training, wait_until_up

from monai_landmark.data.organs import FLARE2022
from monai_landmark.data.synthetic_bodies import synthetic_body
from monai_landmark.engines import save_model
from monai_landmark.networks import landmark_network

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("monailabel") is None, reason="MONAI Label is not installed here; see `make label`"
    ),
]

ORGANS = ["liver", "spleen", "aorta"]
NAME = "Planted_Jane"  # of a patient, in a file's name and in a header
SIZE = (32, 28, 8)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("label")
    studies, models = folder / "studies", folder / "models"
    studies.mkdir()
    for seed, name in enumerate(("scan0", NAME)):
        body = synthetic_body(seed, SIZE)
        image = nibabel.Nifti1Image(body.hounsfield, body.affine)
        image.header["descrip"] = b"Planted Jane"
        nibabel.save(image, studies / f"{name}.nii.gz")
    card = {"architecture": "diffusion-tiny", "organs": ORGANS, "spatial_size": [32, 32]}
    save_model(landmark_network(4, "diffusion-tiny"), models, {**card, "darkest_hu": -160, "brightest_hu": 240})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--studies", studies, "--model-dir", models, "--device", "cpu", "--port", port, "--max-upload-mib", 1]
    command = [sys.executable, "-m", "monai_landmark", "label", "start", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    with (folder / "server.log").open("w") as stream:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    try:
        running = Server(port, folder / "server.log", studies, models)
        wait_until_up(running, process)
        yield running
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def infer(server: Server, scan: str, output: str) -> bytes:
    status, body = server.form("POST", f"/infer/organs?image={quote(scan)}&output={output}", params="{}")
    assert status == 200, body
    return body


def test_segment_correct_train_segment_anew(server: Server, tmp_path: Path) -> None:
    info = server.json("GET", "/info/")
    task = info["models"]["organs"]
    numbers = {organ: number for number, organ in enumerate(ORGANS, start=1)}
    assert task["type"] == "segmentation" and task["dimension"] == 3 and task["labels"] == numbers
    assert info["labels"] == ORGANS and set(info["trainers"]) == {"organs"} and set(info["strategies"]) == {"random"}
    assert server.json("POST", "/activelearning/random", {})["id"] in ("scan0", NAME)

    before = json.loads(infer(server, NAME, "json"))
    assert before["label_names"] == numbers and list(before["volumes_ml"]) == ORGANS
    (tmp_path / "found.nii.gz").write_bytes(infer(server, NAME, "image"))
    found, scan = nibabel.load(tmp_path / "found.nii.gz"), nibabel.load(server.studies / f"{NAME}.nii.gz")
    assert found.shape == SIZE and set(np.unique(found.dataobj)) <= {0, 1, 2, 3}
    np.testing.assert_allclose(found.affine, scan.affine)
    assert b"Planted" not in found.header.binaryblock
    assert b"label_names" in infer(server, NAME, "all")

    labels, sent = synthetic_body(1, SIZE).labels, tmp_path / "sent.nii.gz"
    known = {organ: FLARE2022.index(organ) + 1 for organ in ORGANS}  # other numbers than the server's
    nibabel.save(nibabel.Nifti1Image(np.where(np.isin(labels, list(known.values())), labels, 0), scan.affine), sent)
    told = json.dumps({"label_info": [{"name": organ, "idx": number} for organ, number in known.items()]})
    target = f"/datastore/label?image={NAME}&tag=final"
    assert server.form("PUT", target, label=("x.nii.gz", sent.read_bytes()))[0] == 400  # 5 is of no organ
    status, body = server.form("PUT", target, params=told, label=("x.nii.gz", sent.read_bytes()))
    assert status == 200, body
    kept = np.asarray(nibabel.load(server.studies / "labels" / "final" / f"{NAME}.nii.gz").dataobj)
    for organ, number in known.items():
        np.testing.assert_array_equal(kept == numbers[organ], labels == number)
    assert server.ask("GET", f"/datastore/label?label={NAME}&tag=final")[0] == 200

    server.json("POST", "/train/organs", {**TWO_STEPS, "label_budget": "4 slices"})
    task = wait_for_training(server)
    assert task["status"] == "DONE" and any("step 2 of 2: loss" in line for line in task["details"]), task
    after = json.loads(infer(server, NAME, "json"))
    assert after["model"]["sha256"] != before["model"]["sha256"]
    card = json.loads((server.models / "rounds" / "0001" / "model.json").read_text())
    assert card["label_budget"] == 4 and card["organs"] == ORGANS and card["spatial_size"] == [32, 32]


def test_batch_keeps_predictions_and_an_upload_is_segmented_and_not_kept(server: Server) -> None:
    answer = server.json("POST", "/batch/infer/organs?images=unlabeled&run_sync=true", {"label_tag": "original"})
    assert list(answer["scan0"]) == ORGANS
    assert server.ask("GET", "/datastore/label?label=scan0&tag=original")[0] == 200
    before = sorted(file.name for file in server.studies.iterdir())
    scan = (server.studies / "scan0.nii.gz").read_bytes()
    status, body = server.form("POST", "/infer/organs?output=json", params="{}", file=("Planted_Jane.nii.gz", scan))
    assert status == 200 and json.loads(body)["label_names"]
    assert sorted(file.name for file in server.studies.iterdir()) == before
    status, body = server.form("PUT", "/datastore/image?image=Planted_John", file=("Planted_John.nii.gz", scan))
    assert status == 200 and json.loads(body)["image"].startswith("film-")


def test_refusals_are_sentences_and_the_log_names_nobody(server: Server) -> None:
    infer(server, NAME, "json")
    refused = [
        (404, server.form("POST", "/infer/organs?image=Planted_John", params="{}")),
        (404, server.form("POST", "/infer/landmarks?image=scan0", params="{}")),
        (400, server.ask("POST", "/train/organs", b'{"label_budget": "many"}')),
        (400, server.form("PUT", "/datastore/label?image=scan0&tag=final", label=("x.nii.gz", b"Planted_John"))),
        (400, server.form("PUT", "/datastore/image?image=x", file=("Planted_John.nii.gz", b"Planted_John"))),
        (404, server.ask("GET", "/review/")),
    ]
    for status, (found, body) in refused:
        sentence = json.loads(body)["detail"]
        assert found == status and len(sentence.split()) > 2, (found, sentence)
        assert str(server.studies.parent) not in sentence and "Planted" not in sentence
    log = server.log.read_text()
    assert "segmented in" in log
    assert not [word for word in ("Planted", "Jane", "John", "scan0", ".nii") if word in log]
