"""The end of an evaluation of organs: scores of every scan and organ, pictures, and one page that shows them."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from monai_landmark.data.organs import TOLERANCES_MM, organ_table
from monai_landmark.data.scan import Scan
from monai_landmark.data.scan_list import ScanList, blocks_of
from monai_landmark.data.scan_reader import SCANS
from monai_landmark.files import write_text
from monai_landmark.manifest import write_manifest
from monai_landmark.metrics.organ_overlap import SCORES, organ_scores
from monai_landmark.networks import model_card
from monai_landmark.results.html import Cell, definitions, number, page, section, table
from monai_landmark.results.label_files import DISCLAIMER
from monai_landmark.results.label_volumes import LabeledScan
from monai_landmark.results.report_info import ReportInfo
from monai_landmark.results.table import jsonable
from monai_landmark.transforms.slices import organ_classes

__all__ = ["OrganReport", "slice_picture"]

_TITLES = {"dsc": "DSC %", "nsd": "NSD %", "hd95_mm": "HD95 mm"}
_PICTURES = 3  # slices shown of a scan
_WINDOW_HU = (-160.0, 240.0)
_ENLARGED = 384  # pixels, longer side of a picture
_UNKNOWN = ("the scan's labels", "nobody says who drew them")


class OrganReport:
    """Holds every segmented scan against its labels; at the end writes ``report.html`` and the numbers beside it.

    ``scores.csv`` has a line for each scan and organ, ``metrics.json`` the means. Of a scan that is measured in blocks
    only those count; what lies between is empty in both volumes.

    Args:
        datalist: the list of scans.
        section: which section of it was measured.
        model_dir: folder of the weights.
        output_dir: where to.
        surfaces: whether surfaces and distances are measured too; they take most of the time.
        pictures: scans that are shown at most; 0: none.
        command: stated in the report.
    """

    def __init__(
        self,
        datalist: str | PathLike[str],
        section: str,
        model_dir: str | PathLike[str],
        output_dir: str | PathLike[str],
        surfaces: bool = True,
        pictures: int = 12,
        command: str = "",
    ) -> None:
        self.datalist, self.section, self.model_dir = Path(datalist), section, Path(model_dir)
        self.output_dir, self.surfaces, self.pictures, self.command = Path(output_dir), surfaces, pictures, command
        self.rows: list[dict[str, Any]] = []
        self._shown: list[str] = []

    def __call__(self, found: LabeledScan) -> None:
        """Measure one scan.

        Args:
            found: what the network found.
        """
        item, scan = found.item, found.scan
        stored = SCANS.labels(item["label"], scan)
        reference = organ_classes(stored, organ_table(item["numbers"], found.organs))
        ours = np.zeros_like(reference)
        inside = np.zeros(len(reference), dtype=bool)
        for first, end in blocks_of({**item, "slices": len(scan)}):
            inside[first:end] = True
        ours[inside] = found.slices[inside]
        reference[~inside] = 0
        spacing = (scan.slice_mm, *scan.spacing_mm)
        for row in organ_scores(ours, reference, spacing, found.organs, TOLERANCES_MM, self.surfaces):
            self.rows.append({"scan": item["id"], **row})
        if len(self._shown) < self.pictures:
            self._shown.append(_figure(item["id"], scan, ours, reference, inside))

    def finish(self) -> None:
        """Write the report."""
        listed, card = ScanList.load(self.datalist), model_card(self.model_dir)
        document = self._document(listed, card)
        write_text(self.output_dir / "scores.csv", _csv(self.rows))
        text = json.dumps(jsonable(document), indent=1, allow_nan=False)
        write_text(self.output_dir / "metrics.json", text + "\n")
        write_text(self.output_dir / "report.html", self._page(document, listed))
        write_manifest(
            self.output_dir, {"datalist": self.datalist, "weights": self.model_dir / "model.safetensors"}, []
        )
        self.rows, self._shown = [], []

    def _document(self, listed: ScanList, card: Mapping[str, Any]) -> dict[str, Any]:
        """All numbers of the report."""
        info = ReportInfo(
            title="Organ report",
            dataset=listed.name,
            split=self.section + ("" if listed.gap is None else f", blocks {listed.gap} slices apart"),
            reader=listed.reader,
            labels=card.get("label_budget"),
            initialization=str(card.get("initialization", "")),
            seeds=tuple([card["seed"]] if "seed" in card else []),
            command=self.command,
            notes=tuple(listed.notes),
        )
        organs = list(dict.fromkeys(row["organ"] for row in self.rows))
        return {
            "format": "monai-landmark/organ-metrics",
            "format_version": 1,
            "scans": len({row["scan"] for row in self.rows}),
            "mean": _means(self.rows),
            "organs": {organ: _means([row for row in self.rows if row["organ"] == organ]) for organ in organs},
            "tolerances_mm": {organ: TOLERANCES_MM.get(organ, 3.0) for organ in organs},
            "unscored": "an organ that is neither in the labels nor found has no score; one that is in one only has "
            "DSC 0, NSD 0 and no HD95",
            "model": {"name": card.get("architecture", ""), "sha256": card.get("sha256")},
            "info": asdict(info),
            "disclaimer": DISCLAIMER,
        }

    def _page(self, document: Mapping[str, Any], listed: ScanList) -> str:
        info = document["info"]
        mean = document["mean"]
        scans = f"{document['scans']} scan{'' if document['scans'] == 1 else 's'}"
        tiles = "".join(
            f'<div class="number{" key" if name == "dsc" else ""}"><b>{number(mean[name], 1)}</b>'
            f'<span class="name">{escape(_TITLES[name])}</span><span>mean of {mean["scored"]} organs in {scans}'
            "</span></div>"
            for name in SCORES
            if not math.isnan(mean[name])
        )
        reader = listed.reader or _UNKNOWN[1]
        notices = [f"The reference is the labels of: {reader}.", *info["notes"]]
        lost = mean["missed"]
        notices += [f"Organs that were not found at all: {lost}. Their HD95 is left out of the mean."] if lost else []
        body = "".join(f'<p class="notice">{escape(text)}</p>' for text in notices)
        body += f'<div class="numbers">{tiles}</div>'
        hint = "Means over the scans that show the organ. Click a heading to sort."
        body += section("Organs", f'<div class="scroll">{_organ_table(document)}</div>', hint=hint)
        if self._shown:
            hint = "Filled: found. Outlined in white: the reference. Seen from below, the patient's right on the left."
            body += section("Scans", f'<div class="films">{"".join(self._shown)}</div>', hint=hint, kind="long")
        facts = [
            ("Model", escape(f"{document['model']['name']} {(document['model']['sha256'] or '')[:12]}")),
            ("Initialization", escape(Path(info["initialization"]).name)),
            ("Labeled slices", escape(str(info["labels"] or ""))),
            ("Seeds", escape(", ".join(map(str, info["seeds"])))),
            ("Command", f"<code>{escape(self.command)}</code>" if self.command else ""),
        ]
        body += section("Where the numbers come from", definitions(facts))
        parts = [listed.name, info["split"], scans]
        return page(info["title"], parts, body, disclaimer=DISCLAIMER, numbers="metrics.json and scores.csv")


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over rows that have a score; an infinite distance is counted instead."""
    found: dict[str, Any] = {}
    for name in SCORES:
        values = [row[name] for row in rows if math.isfinite(row[name])]
        found[name] = statistics.fmean(values) if values else math.nan
    found["scored"] = sum(not math.isnan(row["dsc"]) for row in rows)
    found["missed"] = sum(row["reference_ml"] > 0 and row["found_ml"] == 0 for row in rows)
    return found


def _organ_table(document: Mapping[str, Any]) -> str:
    heads = ["Organ", *_TITLES.values(), "tolerance mm", "scans", "not found"]
    rows = []
    for organ, mean in document["organs"].items():
        if not mean["scored"]:
            continue
        line = [
            Cell(escape(organ.replace("_", " ")), organ),
            Cell(number(mean["dsc"], 1), mean["dsc"], mean["dsc"] / 100),
        ]
        line += [Cell(number(mean[name], 1), mean[name]) for name in SCORES[1:]]
        line += [
            Cell(number(document["tolerances_mm"][organ], 0)),
            Cell(str(mean["scored"])),
            Cell(str(mean["missed"])),
        ]
        rows.append(line)
    return table(heads, rows, text_columns=[0], kind="sortable")


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    columns = ["scan", "organ", *SCORES, "found_ml", "reference_ml"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        shown = {key: "" if isinstance(row[key], float) and math.isnan(row[key]) else row[key] for key in columns}
        writer.writerow(shown)
    return text.getvalue()


def _figure(
    name: str, scan: Scan, found: NDArray[np.uint8], reference: NDArray[np.uint8], inside: NDArray[np.bool_]
) -> str:
    """Slices of one scan, spread over those that show an organ."""
    shows = np.flatnonzero(inside & (reference.any(axis=(1, 2)) | found.any(axis=(1, 2))))
    places = shows if len(shows) else np.flatnonzero(inside)
    chosen = places[np.linspace(0, len(places) - 1, _PICTURES + 2).round().astype(int)[1:-1]]
    pictures = []
    for index in dict.fromkeys(int(place) for place in chosen):
        picture = slice_picture(scan.slice(index), found[index], reference[index], scan.spacing_mm)
        stream = io.BytesIO()
        picture.save(stream, format="PNG")
        data = base64.b64encode(stream.getvalue()).decode("ascii")
        caption = f"<b>{escape(name)}</b> \N{MIDDLE DOT} slice {index}"
        image = f'<img src="data:image/png;base64,{data}" alt="slice {index}" style="width:100%;border-radius:9px">'
        pictures.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    return "".join(pictures)


def slice_picture(
    hounsfield: NDArray[np.float32],
    found: NDArray[np.uint8],
    reference: NDArray[np.uint8] | None = None,
    spacing_mm: tuple[float, float] = (1.0, 1.0),
) -> Image.Image:
    """A slice with organs in color.

    Args:
        hounsfield: ``(H, W)`` in HU.
        found: ``(H, W)`` classes, drawn filled.
        reference: ``(H, W)`` classes, drawn as white outlines; None: none.
        spacing_mm: ``(row_mm, col_mm)``; the picture has the body's proportions.

    Returns:
        RGB picture.
    """
    low, high = _WINDOW_HU
    gray = ((hounsfield - low) / (high - low)).clip(0, 1)
    colors = np.asarray(colormaps["tab20"](np.arange(20)))[:, :3]
    picture = np.repeat(gray[..., None], 3, axis=-1)
    organ = found > 0
    picture[organ] = 0.55 * picture[organ] + 0.45 * colors[found[organ] % 20]
    if reference is not None:
        edge = np.zeros(reference.shape, dtype=bool)
        edge[1:] |= reference[1:] != reference[:-1]
        edge[:, 1:] |= reference[:, 1:] != reference[:, :-1]
        picture[edge] = 1.0
    image = Image.fromarray((255 * picture).astype(np.uint8))
    extent = hounsfield.shape[0] * spacing_mm[0], hounsfield.shape[1] * spacing_mm[1]
    height, width = (max(1, round(_ENLARGED * side / max(extent))) for side in extent)
    return image.resize((width, height), Image.Resampling.NEAREST)
