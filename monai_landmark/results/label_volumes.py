"""From a network's maps of slices to the label volume of a scan, on the scan's own grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from monai_landmark.data.geometry import film_affine, grid_to_mm, mm_to_grid
from monai_landmark.data.scan import Scan, axial_view
from monai_landmark.data.scan_reader import SCANS
from monai_landmark.errors import ConfigurationError

__all__ = ["LabeledScan", "VolumeCollector", "keep_largest"]


@dataclass(frozen=True)
class LabeledScan:
    """A scan and what a network found in it.

    Attributes:
        item: of the list of scans, or ``image`` and ``id``.
        scan: the scan.
        labels: ``(I, J, K)`` uint8 in the order of the scan's file: 0 background, then the organs from 1.
        organs: their names.
    """

    item: Mapping[str, Any]
    scan: Scan
    labels: NDArray[np.uint8]
    organs: tuple[str, ...]

    @property
    def slices(self) -> NDArray[np.uint8]:
        """``(D, H, W)`` axial view."""
        return axial_view(self.labels, self.scan.affine)

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Organ -> how large it was found."""
        voxel = abs(float(np.linalg.det(self.scan.affine[:3, :3]))) / 1000
        counts = np.zeros(len(self.organs) + 1, dtype=np.int64)
        for one in self.slices:  # slice by slice: counting takes eight bytes a voxel
            counts += np.bincount(one.ravel(), minlength=len(counts))
        return {organ: round(float(count) * voxel, 3) for organ, count in zip(self.organs, counts[1:], strict=True)}


Consumer = Callable[[LabeledScan], None]


class VolumeCollector:
    """Handler that puts the maps of slices together; a finished volume is handed on and forgotten.

    Args:
        scans: items of the scans, as their slices come; see :func:`monai_landmark.data.scan_list.slices_of`.
        organs: names of the classes from 1.
        consumers: take each finished volume; those with a ``finish`` are told when all are done.
        neighbors: slices on either side whose probabilities are averaged in, weights falling evenly; 0: none.
        largest_component: keep only the largest connected part of each organ.
        pred_key: key of the ``(1 + organs, H, W)`` logits.

    Raises:
        ConfigurationError: if ``neighbors`` is negative.
    """

    def __init__(
        self,
        scans: Sequence[Mapping[str, Any]],
        organs: Sequence[str],
        consumers: Sequence[Consumer] = (),
        neighbors: int = 0,
        largest_component: bool = False,
        pred_key: str = "pred",
    ) -> None:
        if neighbors < 0:
            raise ConfigurationError("not a number of slices", field="neighbors", value=neighbors, expected="0 or more")
        self.items = {item["id"]: item for item in scans}
        self.organs, self.consumers = tuple(organs), tuple(consumers)
        self.neighbors, self.largest_component, self.pred_key = neighbors, largest_component, pred_key
        self._current: _Stack | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator that goes through the slices in their order.

        Args:
            engine: a :class:`monai.engines.SupervisedEvaluator`.
        """
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._completed)

    def _started(self, _: Engine) -> None:
        self._current = None

    def _completed(self, _: Engine) -> None:
        self._finish()
        for consumer in self.consumers:
            if finish := getattr(consumer, "finish", None):
                finish()

    def __call__(self, engine: Engine) -> None:
        """Take the slices of one step.

        Args:
            engine: the evaluator.
        """
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            if self._current is None or self._current.name != item["scan"]:
                self._finish()
                self._current = _Stack(self.items[item["scan"]], self.neighbors)
            probabilities = torch.softmax(output[self.pred_key].float().as_subclass(torch.Tensor).cpu(), dim=0)
            self._current.add(int(item["slice"]), probabilities, output["image"].affine)

    def _finish(self) -> None:
        if self._current is None:
            return
        stack, self._current = self._current, None
        stack.flush()
        if self.largest_component:
            keep_largest(stack.labels, len(self.organs))
        found = LabeledScan(stack.item, stack.scan, stack.labels, self.organs)
        for consumer in self.consumers:
            consumer(found)


class _Stack:
    """Slices of one scan as they come; only as many maps are kept as a slice has neighbors."""

    def __init__(self, item: Mapping[str, Any], neighbors: int) -> None:
        self.item, self.name, self.neighbors = item, str(item["id"]), neighbors
        self.scan = SCANS.scan(item["image"])
        self.labels = np.zeros(self.scan.shape, dtype=np.uint8, order="F")
        self._slices = axial_view(self.labels, self.scan.affine)
        self._maps: dict[int, torch.Tensor] = {}
        self._written = -1
        self._grid = torch.empty(0)  # made with the first slice, whose affine it takes

    def add(self, index: int, probabilities: torch.Tensor, affine: Any) -> None:
        """Take the next slice."""
        if not len(self._grid):
            height, width = self._slices.shape[1:]
            self._grid = _sampling_grid((height, width), self.scan.spacing_mm, probabilities.shape[-2:], affine)
        if self._maps and index != max(self._maps) + 1:  # another block begins
            self.flush()
        self._maps[index] = probabilities
        self._write(index - self.neighbors)

    def flush(self) -> None:
        """Write what still waits for neighbors that will not come."""
        if self._maps:
            self._write(max(self._maps))
        self._maps.clear()

    def _write(self, until: int) -> None:
        for index in sorted(each for each in self._maps if self._written < each <= until):
            near = [each for each in self._maps if abs(each - index) <= self.neighbors]
            weights = [self.neighbors + 1 - abs(each - index) for each in near]
            mean = sum(weight * self._maps[each] for weight, each in zip(weights, near, strict=True))
            self._slices[index] = self._on_scan(torch.as_tensor(mean) / sum(weights))
            self._written = index
        for index in [each for each in self._maps if each < self._written + 1 - self.neighbors]:
            del self._maps[index]

    def _on_scan(self, probabilities: torch.Tensor) -> NDArray[np.uint8]:
        """The likeliest class of every voxel of the scan's slice."""
        maps = functional.grid_sample(probabilities[None], self._grid, padding_mode="border", align_corners=False)
        classes: NDArray[np.uint8] = maps[0].argmax(dim=0).to(torch.uint8).numpy()
        return classes


def _sampling_grid(
    size: tuple[int, int], spacing_mm: tuple[float, float], grid_size: Sequence[int], affine: Any
) -> torch.Tensor:
    """Where the voxels of a slice lie on the network's grid, in :func:`torch.nn.functional.grid_sample`'s coordinates.

    Args:
        size: ``(H, W)`` of the slice.
        spacing_mm: of the slice.
        grid_size: ``(h, w)`` of the network's grid.
        affine: of the image on that grid.

    Returns:
        ``(1, H, W, 2)``.
    """
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    voxels = torch.stack([columns, rows], dim=-1).reshape(-1, 2).double()
    places = mm_to_grid(grid_to_mm(voxels, film_affine(spacing_mm)), affine)
    sides = torch.tensor([grid_size[1], grid_size[0]], dtype=torch.float64)
    return ((2 * places + 1) / sides - 1).float().reshape(1, *size, 2)


def keep_largest(labels: NDArray[np.uint8], organs: int) -> None:
    """Remove all but the largest connected part of every organ.

    Args:
        labels: ``(I, J, K)``, changed in place.
        organs: number of organs.
    """
    for organ, place in enumerate(ndimage.find_objects(labels, max_label=organs), start=1):
        if place is None:
            continue
        part = labels[place]
        parts, count = ndimage.label(part == organ)
        if count > 1:
            sizes = np.bincount(parts.ravel())
            sizes[0] = 0
            part[(parts != 0) & (parts != sizes.argmax())] = 0
