"""What the server does with scans and label volumes, in this package's own terms: segment, look at a label, train."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_landmark.data.datasets.scans import scan_item
from monai_landmark.data.scan import Scan, axial_view
from monai_landmark.data.scan_list import ScanList
from monai_landmark.data.scan_reader import SCANS, read_labels
from monai_landmark.data.slice_budget import slice_count
from monai_landmark.errors import ConfigurationError, DataError, unwrapped
from monai_landmark.label.checks import RequestError
from monai_landmark.label.rounds import ModelRounds
from monai_landmark.label.service import LabelSettings, chosen_keys, train_round, untrained
from monai_landmark.networks import model_card
from monai_landmark.networks.plain import PLAIN
from monai_landmark.results.label_volumes import LabeledScan
from monai_landmark.safety import open_config
from monai_landmark.transforms.slices import organ_classes

__all__ = ["ScanService", "label_of"]

_CARRIED = ("architecture", "spatial_size", "darkest_hu", "brightest_hu")  # from the model to the next one
Facts = dict[str, Any]


class ScanService:
    """Label volumes by the model in use, and trainings that replace the model.

    Args:
        settings: what the server is started with; its model folder holds a model of organs.

    Raises:
        ConfigurationError: if there is no such model.
    """

    def __init__(self, settings: LabelSettings) -> None:
        self.settings, self.rounds = settings, ModelRounds(settings.model_dir)
        self.organs: tuple[str, ...] = tuple(self._card().get("organs", ()))
        if not self.organs:
            action = "give a folder that train of bundles/ct_organs wrote as --model-dir"
            raise ConfigurationError("nothing says which organs to find", field="model_dir", action=action)
        self._lock = threading.Lock()

    @property
    def numbers(self) -> dict[str, int]:
        """Organ -> its number in label volumes."""
        return {organ: number for number, organ in enumerate(self.organs, start=1)}

    def model_sha256(self) -> str:
        """Of the weights of the model in use; empty where there is none."""
        return str(self._card().get("sha256", ""))

    def segment(self, image: Path, folder: Path) -> Facts:
        """Segment one scan with the model in use.

        Args:
            image: its file.
            folder: receives the label volume, ``scan.nii.gz``, on the scan's own grid.

        Returns:
            See :func:`monai_landmark.results.label_files.label_facts`.

        Raises:
            RequestError: if nothing is trained.
            DataError: if the scan or the model cannot be used.
        """
        current = self.rounds.current()
        if current is None:
            raise untrained()
        parser = open_config(self.settings.bundle / "configs" / "inference.yaml", self.settings.trust)
        parser.update({"bundle_root": str(self.settings.bundle), "model_dir": str(current), "output_dir": str(folder)})
        parser.update({"scans": [{"image": str(image), "id": "scan"}], "files": ["nifti", "json"]})
        if self.settings.device:
            parser["device"] = f"$torch.device('{self.settings.device}')"
        with self._lock, unwrapped():
            try:
                parser.get_parsed_content("evaluator").run()
            finally:
                SCANS.clear()  # what a client sent is not kept
        facts: Facts = json.loads((folder / "scan.json").read_text(encoding="utf-8"))
        return facts

    def train(self, items: Sequence[Facts], asked: Mapping[str, Any], report: Callable[[str], None]) -> Facts:
        """Train on labeled scans in a process of its own, and use the model that comes out.

        Args:
            items: see :func:`monai_landmark.data.datasets.scans.scan_item`, with absolute paths.
            asked: see :meth:`check_training`.
            report: called with each line of progress.

        Returns:
            ``round``, ``films`` (scans) and ``sha256`` of the new model.

        Raises:
            RequestError: if there is no label, or a setting is not possible.
            ConfigurationError: if the training failed; the model in use stays.
        """
        if not items:
            action = "save the label of at least one scan with the tag final"
            raise RequestError("no scan has a label", field="labels", action=action)
        keys = self._train_keys(dict(asked))
        folder = self.rounds.new()
        numbers = {number: organ for organ, number in self.numbers.items()}
        labels = ScanList("labels of this server", Path("/"), self.organs, numbers, sections={"training": list(items)})
        train_round(self.settings, labels.save(folder / "datalist.json"), keys, report)
        self.rounds.accept(folder)
        return {"round": folder.name, "films": len(items), "sha256": self.model_sha256()}

    def check_training(self, asked: Mapping[str, Any]) -> None:
        """Refuse settings of a training before it is begun.

        Args:
            asked: ``epochs`` (or ``max_epochs``), ``steps_per_epoch``, ``batch_size``, ``seed``; ``label_budget``, how
                many labeled slices are used (``4``, ``"10 %"``, ``"all"``); ``start``: ``pretrained`` (default where
                the server has such a file) or ``current``.

        Raises:
            RequestError: if a setting is not possible.
        """
        self._train_keys(dict(asked))

    def item(self, scan: str, image: Path, label: Path) -> Facts:
        """An item to train on.

        Args:
            scan: id of the scan.
            image: its file.
            label: its label volume.

        Returns:
            See :func:`monai_landmark.data.datasets.scans.scan_item`.

        Raises:
            DataError: if either cannot be used.
        """
        numbers = {number: organ for organ, number in self.numbers.items()}
        return scan_item({"image": str(image), "id": scan}, label, numbers, self.organs, Path("/"))

    def _card(self) -> Facts:
        current = self.rounds.current()
        return {} if current is None else model_card(current)

    def _train_keys(self, asked: dict[str, Any]) -> Facts:
        """Keys of ``train.yaml``: what the client may choose, and what follows from the model."""
        keys = chosen_keys(asked, self.settings)
        keys["label_budget"] = _budget(asked.get("label_budget", "all"))
        card = self._card()
        keys |= {key: card[key] for key in _CARRIED if key in card}
        if (weights := self._start(asked.get("start"), card)) is not None:
            keys["initialization"] = str(weights)
        return keys

    def _start(self, name: Any, card: Facts) -> Path | None:
        """The weights file that a training starts from; None: none, for a network that only starts from random ones."""
        if isinstance(name, list) and name:  # a client sends back the choices it was offered
            name = name[0]
        name = name or self.settings.starts()[0]
        if name not in self.settings.starts():
            raise RequestError("not a possible start", field="start", expected=" | ".join(self.settings.starts()))
        if name == "pretrained":
            return self.settings.pretrained
        current = self.rounds.current()
        return None if current is None or card.get("architecture") in PLAIN else current / "model.safetensors"


def label_of(path: str | PathLike[str], scan: Scan, numbers: Mapping[str, int], label_info: Any = None) -> LabeledScan:
    """Read what a client sent as the label volume of a scan.

    Args:
        path: NIfTI, on the scan's grid.
        scan: the scan.
        numbers: organ -> the number that the server keeps it under.
        label_info: what 3D Slicer's module says of its segments, ``[{"name": ..., "idx": ...}, ...]``; None: the
            numbers are the server's.

    Returns:
        The labels under the server's numbers.

    Raises:
        RequestError: what is wrong with the label.
    """
    sent = _sent_numbers(label_info, numbers)
    try:
        volume: NDArray[Any] = read_labels(path, scan)
    except DataError as error:
        expected = error.expected or "NIfTI, whole numbers on the scan's own grid"
        raise RequestError(error.problem, field=error.field, expected=expected, action=error.action) from error
    labels = np.zeros(scan.shape, dtype=np.uint8, order="F")
    table = {number: numbers[organ] for number, organ in sent.items()}
    for part, whole in zip(axial_view(volume, scan.affine), axial_view(labels, scan.affine), strict=True):
        if unknown := sorted(set(np.unique(part).tolist()) - {0, *table}):
            expected = ", ".join(f"{number} {organ}" for number, organ in sent.items())
            raise RequestError("a number is of no organ", field=f"voxels of {unknown[0]}", expected=expected)
        whole[:] = organ_classes(part, table)
    if not labels.any():
        raise RequestError("no organ is labeled", field="label", action="paint at least one organ")
    return LabeledScan({"id": "label"}, scan, labels, tuple(numbers))


def _sent_numbers(label_info: Any, numbers: Mapping[str, int]) -> dict[int, str]:
    """Number in the client's volume -> organ."""
    if not label_info:
        return {number: organ for organ, number in numbers.items()}
    try:
        sent = {int(entry["idx"]): str(entry["name"]) for entry in label_info}
    except (TypeError, KeyError, ValueError):
        expected = 'a list of {"name": organ, "idx": number}'
        raise RequestError("not what labels are called", field="label_info", expected=expected) from None
    if any(organ not in numbers for organ in sent.values()):
        action = "rename the segment, or remove it"
        expected = " | ".join(numbers)
        raise RequestError("a segment is no organ of the model", field="label_info", expected=expected, action=action)
    return sent


def _budget(asked: Any) -> str:
    if not isinstance(asked, str | int) or isinstance(asked, bool) or not re.fullmatch(r"[\w. %]{1,20}", str(asked)):
        raise RequestError("not a label budget", field="label_budget", expected="4, '4 slices', '10 %' or all")
    try:
        slice_count(asked, 1)
    except ConfigurationError as error:
        raise RequestError(error.problem, field=error.field, expected=error.expected) from error
    return str(asked)
