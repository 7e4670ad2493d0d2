"""From folders of scans and label volumes to a list of scans: any folder, and FLARE 2022 as it is distributed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_landmark.data.datasets.split import DEFAULT_FRACTIONS, Fractions
from monai_landmark.data.organs import FLARE2022, organ_numbers, organ_table
from monai_landmark.data.scan import axial_view
from monai_landmark.data.scan_list import ScanList
from monai_landmark.data.scan_reader import find_scans, read_labels, read_scan
from monai_landmark.data.slice_pool import scan_sha256
from monai_landmark.errors import ConfigurationError, ScanError
from monai_landmark.transforms.slices import organ_classes

__all__ = ["in_blocks", "prepare_flare2022", "prepare_scans", "scan_item"]

_CHANNEL = "_0000"  # that nnU-Net's naming adds to a scan, but not to its labels
Item = dict[str, Any]


def prepare_scans(
    folder: Path,
    labels: Path | None = None,
    label_set: str = "flare2022",
    reader: str = "",
    fractions: Fractions = DEFAULT_FRACTIONS,
    unlabelled: Sequence[Path] = (),
    organs: Sequence[str] = FLARE2022,
) -> ScanList:
    """List of the scans of a folder; those with labels are divided by patient, a scan being a patient of its own.

    Every scan and label volume is read once, so that what cannot be used is told now.

    Args:
        folder: NIfTI files, or folders of DICOM series, at any depth.
        labels: folder of label volumes, each called as its scan (``case_0000.nii.gz`` and ``case.nii.gz`` go together).
        label_set: which number is which organ, one of :data:`monai_landmark.data.organs.LABEL_SETS`.
        reader: who drew the labels.
        fractions: of the split.
        unlabelled: folders of further scans.
        organs: the network's organs.

    Returns:
        The list.

    Raises:
        ConfigurationError: labels that belong to no scan, or too few scans to divide.
        ScanError: a scan cannot be used.
        AnnotationError: a label volume cannot be used.
    """
    numbers = {number: organ for number, organ in organ_numbers(label_set).items() if organ in organs}
    root = Path(os.path.commonpath([folder.resolve(), *([labels.resolve()] if labels else [])]))
    files = _label_files(labels) if labels is not None else {}
    scans = [one for one in find_scans(folder) if labels is None or not _below(Path(one["image"]), labels)]
    named = {_case(one["id"]): one for one in scans}
    if lost := sorted(files.keys() - named.keys()):
        expected = ", ".join(sorted(named)[:3]) + ", ..."
        raise ConfigurationError("labels of no scan", file=labels, value=lost[:3], expected=expected)
    items = [scan_item(one, files.get(case), numbers, organs, root) for case, one in named.items()]
    for further in unlabelled:
        items += [scan_item(one, None, numbers, organs, root) for one in find_scans(further)]
    sections = fractions.divide(item["patient"] for item in items if "label" in item)
    found = ScanList(folder.name, root, tuple(organs), numbers, reader, notes=[f"split {fractions}, a scan a patient"])
    for item in items:
        section = sections[item["patient"]] if "label" in item else "unlabelled"
        found.sections.setdefault(section, []).append(item)
    return found


def prepare_flare2022(folder: Path, fractions: Fractions = DEFAULT_FRACTIONS) -> ScanList:
    """List of the FLARE 2022 scans as they are distributed.

    Args:
        folder: holds, at any depth, a folder ``labels`` beside a folder ``images`` (of ``FLARE22_LabeledCase50``), and
            any folders of unlabeled cases.
        fractions: of the split of the labeled cases.

    Returns:
        The list.

    Raises:
        ConfigurationError: if there is not one such pair of folders.
    """
    pairs = [place for place in sorted(folder.rglob("labels")) if (place.parent / "images").is_dir()]
    if len(pairs) != 1:
        raise ConfigurationError(
            "not the layout of FLARE 2022",
            file=folder,
            value=f"{len(pairs)} folders labels beside images",
            expected="one",
            action="use `scans folder DIR --labels DIR` for other layouts",
        )
    images = pairs[0].parent / "images"
    found = prepare_scans(images, pairs[0], "flare2022", "FLARE 2022", fractions)
    old_root, found.name, found.root = found.root, "FLARE 2022", folder.resolve()
    for _, item in found.items():
        for key in ("image", "label"):
            if key in item:
                item[key] = str(_relative(old_root / item[key], found.root))
    others = [one for one in find_scans(folder) if not _below(Path(one["image"]), pairs[0].parent)]
    numbers = found.numbers
    further = [scan_item(one, None, numbers, FLARE2022, found.root) for one in others]
    if further:
        found.sections["unlabelled"] = [*found.sections.get("unlabelled", []), *further]
    return found


def in_blocks(item: Mapping[str, Any], blocks: Iterable[tuple[int, int]], name: str) -> Item:
    """A part of a scan as an item of its own, for trials with a single scan (see :class:`ScanList`, ``gap``).

    Args:
        item: of a list.
        blocks: ``(first, end)`` slices.
        name: that the part is called by.

    Returns:
        The item.
    """
    return {**item, "id": f"{item['id']}-{name}", "blocks": [list(block) for block in blocks]}


def scan_item(
    found: Mapping[str, Any], label: Path | None, numbers: Mapping[int, str], organs: Sequence[str], root: Path
) -> Item:
    """An item of a list of scans; the scan and its labels are read once.

    Args:
        found: ``image`` and ``id``, see :func:`monai_landmark.data.scan_reader.find_scans`.
        label: the label volume, where there is one.
        numbers: number in the label volume -> organ.
        organs: the network's organs.
        root: what the item's paths are relative to.

    Returns:
        The item.

    Raises:
        ScanError: the scan cannot be used, or its labels show no organ.
        AnnotationError: the labels cannot be used.
    """
    scan = read_scan(found["image"])
    place = str(_relative(Path(found["image"]).resolve(), root))
    item: Item = {"image": place, "id": found["id"], "patient": _case(found["id"]), "slices": len(scan)}
    item["sha256"] = scan_sha256(found["image"])
    if label is None:
        return item
    volume = axial_view(read_labels(label, scan), scan.affine)
    shown = [_organs_in(volume[index], numbers, organs) for index in range(len(scan))]
    if not any(shown):
        expected, action = f"some of {sorted(numbers)}", "name the label set that the file was made with"
        raise ScanError("no organ is labeled", file=label, field="labels", expected=expected, action=action)
    return {**item, "label": str(_relative(label.resolve(), root)), "shown": shown}


def _organs_in(labels: NDArray[Any], numbers: Mapping[int, str], organs: Sequence[str]) -> int:
    return len(np.setdiff1d(organ_classes(labels, organ_table(numbers, organs)), [0]))


def _label_files(folder: Path) -> dict[str, Path]:
    files = sorted(path for path in folder.rglob("*") if path.name.lower().endswith((".nii", ".nii.gz")))
    return {_case(path.relative_to(folder).as_posix().split(".nii")[0]): path for path in files}


def _case(name: str) -> str:
    return name.removesuffix(_CHANNEL)


def _below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path
