"""How long do inspect, prepare and the start of a pre-training take on very many films, and how much memory?

    python benchmarks/scale.py --films 100000      # writes some GB of small films, and removes them at the end

Films are synthetic textures of 120 x 100 pixels, nine of ten PNG, the others DICOM. Every step is a process of its own,
as a user starts it; its processor time (of all its threads) and its peak memory are taken from the system. What was
done is not done again after an interruption. The records go into docs/results/scale.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom import FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid
from records import add_records, record

from monai_landmark.files import write_text

ROOT = Path(__file__).resolve().parents[1]
OUT = Path("docs/results/scale.json")
SIZE = (120, 100)
IN_A_FOLDER = 1000
Step = dict[str, float]


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--films", type=int, default=100_000)
    parser.add_argument("--work", type=Path, default=Path("runs/scale"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--keep", action="store_true", help="do not remove the films")
    args = parser.parse_args()
    work = (args.work / str(args.films)).resolve()
    write_films(work / "films", args.films)
    done = {name: measured(name, words, work) for name, words in steps(work).items()}
    add_records(args.out, records(done, args.films))
    if not args.keep:
        shutil.rmtree(work)


def steps(work: Path) -> dict[str, list[str]]:
    """Name -> words of the command line."""
    films, cache = str(work / "films"), str(work / "cache.sqlite")
    inspect = ["monai_landmark", "inspect", films, "--cache", cache]
    datalist = str(work / "datalist.json")
    prepare = ["monai_landmark", "prepare", "folder", films, "--out", datalist, "--cache", cache]
    bundle = ROOT / "bundles" / "xray_landmarks"
    keys = {"datalist": datalist, "bundle_root": bundle, "pool_cache": cache, "num_workers": 0}
    keys |= {"architecture": "diffusion-tiny", "epochs": 1, "steps_per_epoch": 1, "batch_size": 1, "samples": 0}
    keys |= {"spatial_size": "[32,32]", "precision": "float32", "held_out_films": 1, "cache_films": 100}
    words = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
    pretrain = ["monai.bundle", "run", "pretrain", "--config_file", str(bundle / "configs" / "pretrain.yaml"), *words]
    return {
        "inspect_first": [*inspect, "--json", str(work / "first.json")],
        "inspect_second": [*inspect, "--json", str(work / "second.json")],
        "prepare": [*prepare, "--duplicates", "mark"],
        "pretrain_start_first": [*pretrain, "--output_dir", str(work / "pretrained_1")],
        "pretrain_start_second": [*pretrain, "--output_dir", str(work / "pretrained_2")],
    }


def write_films(folder: Path, count: int) -> None:
    """Films that are not there yet; no two are alike."""
    begun = time.process_time()
    for number in range(count):
        place = folder / f"{number // IN_A_FOLDER:03d}"
        file = place / f"{number:06d}.{'png' if number % 10 else 'dcm'}"
        if file.is_file():
            continue
        place.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 256, (15, 12), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(SIZE[::-1], Image.Resampling.BILINEAR)
        half = file.with_suffix(".half")
        if number % 10:
            picture.save(half, "PNG", compress_level=0)
        else:
            dicom(np.asarray(picture)).save_as(half, enforce_file_format=True)
        half.replace(file)
    print(f"{count} films written in {time.process_time() - begun:.0f} s of processor time", flush=True)


def dicom(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> FileDataset:
    """A film of a modality."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    film.SOPClassUID, film.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    film.Modality, film.PhotometricInterpretation, film.SamplesPerPixel, film.PixelRepresentation = (
        "CR",
        "MONOCHROME2",
        1,
        0,
    )
    film.Rows, film.Columns = pixels.shape
    film.BitsAllocated, film.BitsStored, film.HighBit, film.ImagerPixelSpacing = 8, 8, 7, [0.2, 0.2]
    film.PixelData = pixels.tobytes()
    film["PixelData"].VR = "OW"
    return film


def measured(name: str, words: list[str], work: Path) -> Step:
    """Run a step that was not run yet; what it took."""
    file = work / f"{name}.measured.json"
    if file.is_file():
        found: Step = json.loads(file.read_text(encoding="utf-8"))
        return found
    if name == "inspect_first":
        (work / "cache.sqlite").unlink(missing_ok=True)
    time.sleep(3)  # files of this very moment are not trusted
    begun = time.monotonic()
    with (work / f"{name}.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", *words], stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, (work / f"{name}.log").read_text()
    found = {"processor_s": usage.ru_utime + usage.ru_stime, "wall_s": time.monotonic() - begun}
    found |= {
        "peak_mb": usage.ru_maxrss
        / (1 if sys.platform == "darwin" else 1024)
        / (1024 if sys.platform == "darwin" else 1)
    }
    print(name, {key: round(value, 1) for key, value in found.items()}, flush=True)
    write_text(file, json.dumps(found))
    return found


def records(done: Mapping[str, Step], films: int) -> list[dict[str, Any]]:
    """See docs/design.md, section 8."""
    found = []

    def add(name: str, value: float, unit: str, notes: str) -> None:
        """One record."""
        facts = {"seeds": [0], "split": "synthetic films", "notes": notes}
        found.append(record(f"robustness/scale/{films}/{name}", round(value, 2), unit, films, **facts))

    for name, step in done.items():
        notes = f"{step['processor_s']:.1f} s of processor time, {step['wall_s']:.1f} s on a shared machine"
        add(f"{name}/films_per_s", films / step["processor_s"], "films per second of processor time", notes)
        add(f"{name}/peak_mb", step["peak_mb"], "MiB", notes)
    ratio = done["inspect_first"]["processor_s"] / done["inspect_second"]["processor_s"]
    add("inspect_second/times_faster", ratio, "", "processor time of the first run over that of the second")
    return found


if __name__ == "__main__":
    main()
