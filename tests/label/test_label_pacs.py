"""Films of a PACS: a small DICOMweb server of this test's own on loopback, asked through MONAI Label's client."""

from __future__ import annotations

import importlib.util
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from pydicom import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from monai_landmark.errors import FilmError
from monai_landmark.label.checks import NotFoundError, RequestError
from monai_landmark.label.service import LabelService, LabelSettings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("monailabel") is None, reason="MONAI Label is not installed here; see `make label`"
    ),
]


def film(modality: str, series: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dicom = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dicom.SOPClassUID, dicom.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dicom.StudyInstanceUID, dicom.SeriesInstanceUID = f"{series}.1", series
    dicom.Modality, dicom.PhotometricInterpretation = modality, "MONOCHROME2"
    dicom.Rows, dicom.Columns, dicom.SamplesPerPixel, dicom.PixelRepresentation = 80, 50, 1, 0
    dicom.BitsAllocated, dicom.BitsStored, dicom.HighBit = 16, 16, 15
    dicom.PixelData = np.arange(80 * 50, dtype="<u2").tobytes()
    dicom["PixelData"].VR = "OW"
    return dicom


FILMS = [film("CR", "1.2.1"), film("DX", "1.2.2"), film("CT", "1.2.3"), film("CR", "1.2.4"), film("CR", "1.2.4")]


class Pacs(BaseHTTPRequestHandler):
    """Lists series of one modality, and sends the films of one."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/dicom-web/series":
            modality = parse_qs(url.query)["Modality"][0]
            found = {each.SeriesInstanceUID: each for each in FILMS if each.Modality == modality}
            body = json.dumps([self._facts(each) for each in found.values()]).encode()
            return self._send("application/dicom+json", body)
        series = url.path.rsplit("/", 1)[-1]
        parts = [
            b"\r\n--cut\r\nContent-Type: application/dicom\r\n\r\n" + content(each)
            for each in FILMS
            if each.SeriesInstanceUID == series
        ]
        return self._send('multipart/related; type="application/dicom"; boundary=cut', b"".join(parts) + b"\r\n--cut--")

    def _facts(self, each: FileDataset) -> Any:
        facts = Dataset()
        facts.StudyInstanceUID, facts.SeriesInstanceUID = each.StudyInstanceUID, each.SeriesInstanceUID
        return facts.to_json_dict()

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def content(each: FileDataset) -> bytes:
    buffer = io.BytesIO()
    each.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Any]:
    import sys

    from monai_landmark.label.server import STAND_INS

    sys.path.append(str(STAND_INS))
    from monailabel.datastore.dicom import DICOMwebClientX

    from monai_landmark.label.datastore import FilmPacs

    pacs = ThreadingHTTPServer(("127.0.0.1", 0), Pacs)
    threading.Thread(target=pacs.serve_forever, daemon=True).start()
    client = DICOMwebClientX(url=f"http://127.0.0.1:{pacs.server_port}/dicom-web")
    service = LabelService(LabelSettings(tmp_path / "model", schema="chest6"))
    yield FilmPacs(service, client, ("CR", "DX"), str(tmp_path / "cache"))
    pacs.shutdown()
    sys.path.remove(str(STAND_INS))


def test_films_of_a_pacs_are_listed_fetched_and_labelled(store: Any, tmp_path: Path) -> None:
    assert sorted(store.list_images()) == ["1.2.1", "1.2.2", "1.2.4"]  # no CT
    shown = store.service.film(store.film_path("1.2.1"))
    assert shown.size == (80, 50) and shown.pixels[1, 1] == 51
    sent = tmp_path / "sent.json"
    points = [[1.5, 2], [3, 4], [5, 6], [7, 8], [9, 10], None]
    sent.write_text(json.dumps({"films": [{"film": "1.2.1", "landmarks": points}]}))
    store.save_label("1.2.1", str(sent), "final", {})
    assert store.get_labeled_images() == ["1.2.1"] and sorted(store.get_unlabeled_images()) == ["1.2.2", "1.2.4"]
    item = store.training_items()[0]
    assert item["landmarks"] == points and Path(item["image"]).is_relative_to(tmp_path / "cache")


def test_what_is_no_film_of_the_pacs_is_refused(store: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        store.film_path("1.2.3")
    with pytest.raises(RequestError, match="not an id"):
        store.film_path("../1.2.1")
    with pytest.raises(FilmError, match="2 objects"):
        store.film_path("1.2.4")
    with pytest.raises(RequestError, match="come from the PACS"):
        store.add_image("x", str(tmp_path / "x.dcm"), {})
