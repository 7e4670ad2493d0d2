"""Time from a film on disk to its landmarks in JSON, after start, and where the time goes.

    python benchmarks/predict.py --model-dir runs/model [--json docs/results/predict.json]

Films are made by code, 2400 x 1935 as a cephalogram, once as DICOM and once as JPEG. They are pelves: a network that
knows other films doubts nearly every landmark, which makes decoding take its longest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pydicom
import torch
from PIL import Image
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid
from records import record, summary

from monai_landmark.apps.predict import LandmarkPredictor
from monai_landmark.data.films import film_items
from monai_landmark.data.synthetic import synthesize_film
from monai_landmark.files import write_text
from monai_landmark.results.files import save_results

SIZE = (2400, 1935)


def write_films(folder: Path) -> list[Path]:
    """One film of cephalogram size, as 12-bit DICOM and as 8-bit JPEG."""
    small = synthesize_film(0).pixels.astype(np.float32)
    large = np.asarray(Image.fromarray(small).resize(SIZE[::-1], Image.Resampling.BICUBIC))
    large = (large - large.min()) / np.ptp(large)
    Image.fromarray((255 * large).astype(np.uint8)).save(folder / "film.jpg", quality=95)
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.Modality, data.Rows, data.Columns = "DX", *SIZE
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.ImagerPixelSpacing = [0.1, 0.1]
    data.PixelData = (4095 * large).astype(np.uint16).tobytes()
    data.save_as(folder / "film.dcm", enforce_file_format=True)
    return [folder / "film.dcm", folder / "film.jpg"]


def timed(predictor: LandmarkPredictor, film: Path, out: Path) -> dict[str, float]:
    """Seconds of each part for one film."""
    item = film_items([film])[0]
    marks = [time.perf_counter()]
    loaded = predictor.preprocessing({"image": item["image"]})
    marks.append(time.perf_counter())
    with torch.inference_mode():
        logits = predictor.inferer(loaded["image"][None].to(predictor.device), predictor.network)[0]
    marks.append(time.perf_counter())
    predictor.postprocessing({"image": loaded["image"], "pred": logits})
    marks.append(time.perf_counter())
    parts = dict(zip(("read_and_fit", "network", "decode"), np.diff(marks).tolist(), strict=True))
    began = time.perf_counter()
    save_results(predictor(item), out / f"{film.name}.json")
    return {"film": time.perf_counter() - began, **parts}


def main() -> None:
    """Print medians, and write them as result records when asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-dir", required=True)
    parser.add_argument("--bundle", default="bundles/xray_landmarks")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--films", nargs="+", type=Path, help="of the network's own kind, in place of those made")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    predictor = LandmarkPredictor(args.bundle, args.model_dir)
    found = []
    with tempfile.TemporaryDirectory() as name:
        for film in args.films or write_films(Path(name)):
            runs = [timed(predictor, film, Path(name)) for _ in range(args.runs + 1)][1:]
            medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            print(film.suffix, ", ".join(f"{key} {value:.3f} s" for key, value in medians.items()))
            notes = "medians: " + ", ".join(f"{key} {value:.3f} s" for key, value in medians.items())
            facts = {"split": f"one film, {film.suffix[1:]}", "notes": notes}
            films = summary([run["film"] for run in runs], middle=statistics.median)
            name = f"predict/{predictor.device.type}/film_s"
            found.append(record(name, unit="s", n=args.runs, **films, **facts))
    if args.json:
        write_text(args.json, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
