"""A shape learned from the annotated films: it tells a gross error, a landmark far from where the others say it is.

Similarity alignment of a mean shape (Procrustes; Gower, Psychometrika 1975), robust to a few false points by Cauchy
weights. Where each landmark has several candidates, as a map has several peaks, the alignment is that of the two
candidates of two landmarks that explains all maps best (random sample consensus, Fischler and Bolles, Commun. ACM
1981, with every sample tried and likelihoods in place of counts).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from monai.transforms import MapTransform
from numpy.typing import ArrayLike, NDArray

from monai_landmark.data.datalist import landmarks_array
from monai_landmark.data.geometry import grid_to_mm, mm_to_grid
from monai_landmark.transforms.heatmap import DecodeHeatmap
from monai_landmark.uncertainty.expected_error import expected_radial_error

if TYPE_CHECKING:
    from monai_landmark.uncertainty import Calibration

__all__ = ["DecodeLandmarksd", "LandmarkShape", "shape_of_films"]

FloatArray = NDArray[np.float64]
Similarity = NDArray[np.complex128]

_FEWEST_LANDMARKS = 5  # below that, one false point bends the alignment as much as the true ones hold it
_FEWEST_FILMS = 3
_LEAST_RESIDUAL = 1e-3  # of the shape's size: nobody is surer, and films annotated alike would give none at all
_STEPS = 20
_CANDIDATES = 3  # peaks of a map that may be the landmark
_PEAK_PX = 8  # between two of them, at least; a landmark is decoded within this radius of the one that is chosen
_ANCHORS = 20  # landmarks, those with the highest peaks, whose pairs are tried as alignments


def _similarity(source: FloatArray, target: FloatArray, weights: FloatArray) -> Similarity:
    """Least-squares scale, rotation and shift as complex ``(a, b)``: ``target = a * source + b``, points as x + iy."""
    z, w = source @ np.array([1, 1j]), target @ np.array([1, 1j])
    z_mean, w_mean = np.average(z, weights=weights), np.average(w, weights=weights)
    spread = (weights * np.abs(z - z_mean) ** 2).sum()
    a = (weights * np.conj(z - z_mean) * (w - w_mean)).sum() / spread
    return np.array([a, w_mean - a * z_mean])


def _apply(similarity: Similarity, points: FloatArray) -> FloatArray:
    moved = similarity[0] * (points @ np.array([1, 1j])) + similarity[1]
    return np.stack([moved.real, moved.imag], axis=-1)


class ShapeFit(NamedTuple):
    """What a shape says of one film.

    Attributes:
        chosen: ``(K,)`` the candidate of each landmark that fits the others.
        places: ``(K, 2)`` expected positions.
        reach: ``(K,)`` how far a true landmark strays from them (root mean square).
    """

    chosen: NDArray[np.intp]
    places: FloatArray
    reach: FloatArray


@dataclass(frozen=True, eq=False)
class LandmarkShape:
    """Mean shape and how far each landmark strays from where the others put it.

    Attributes:
        mean: ``(K, 2)`` (x, y), centered, in the unit of the films it was learned from.
        residual: ``(K,)`` root mean square distance, same unit, each landmark predicted from the others.
    """

    mean: FloatArray
    residual: FloatArray

    @classmethod
    def fit(cls, films: Iterable[ArrayLike]) -> LandmarkShape | None:
        """Learn from annotated films.

        Args:
            films: ``(K, 2)`` landmarks of each, (x, y) in mm or pixels; NaN where not annotated.

        Returns:
            The shape; None where there are too few films or landmarks to learn one.
        """
        shapes = [np.asarray(film, dtype=np.float64) for film in films]
        shapes = [shape for shape in shapes if np.isfinite(shape[:, 0]).sum() >= _FEWEST_LANDMARKS]
        if len(shapes) < _FEWEST_FILMS or not np.isfinite(np.stack(shapes)[..., 0]).sum(axis=0).all():
            return None
        mean = max(shapes, key=lambda shape: np.isfinite(shape[:, 0]).sum())
        mean = np.where(np.isfinite(mean), mean, np.nanmean(np.stack(shapes), axis=0))
        for _ in range(5):
            aligned = np.stack([_apply(_aligned(shape, mean), shape) for shape in shapes])
            mean = np.nanmean(aligned, axis=0)
        mean = mean - mean.mean(axis=0)
        model = cls(mean, np.ones(len(mean)))
        left_out = np.stack([model._predicted_from_others(shape) - shape for shape in shapes])
        residual = np.sqrt(np.nanmean((left_out**2).sum(axis=-1), axis=0))
        return cls(mean, np.maximum(residual, _LEAST_RESIDUAL * np.sqrt((mean**2).sum(axis=-1).mean())))

    def _predicted_from_others(self, points: FloatArray) -> FloatArray:
        """``(K, 2)``: each landmark from the alignment of all the others."""
        predicted = np.full_like(points, np.nan)
        for index in range(len(points)):
            others = points.copy()
            others[index] = np.nan
            predicted[index] = _apply(_aligned(self.mean, others), self.mean[index])
        return predicted

    def expected(self, points: ArrayLike) -> tuple[FloatArray, FloatArray] | None:
        """Where the landmarks should be, given points of which a few may be false.

        Args:
            points: ``(K, 2)`` (x, y); NaN where not found.

        Returns:
            ``(K, 2)`` expected positions and ``(K,)`` how far a true landmark strays from them (root mean square),
            both in the unit of the points; None where too few points were found.
        """
        given = np.asarray(points, dtype=np.float64)
        found = np.isfinite(given[:, 0])
        if found.sum() < _FEWEST_LANDMARKS:
            return None
        weights = np.ones(int(found.sum()))
        for _ in range(_STEPS):
            similarity = _similarity(self.mean[found], given[found], weights)
            scale = abs(similarity[0])
            distance = np.linalg.norm(_apply(similarity, self.mean[found]) - given[found], axis=-1)
            weights = 1.0 / (1.0 + (distance / (scale * self.residual[found])) ** 2)
        return _apply(similarity, self.mean), scale * self.residual

    def explain(self, candidates: ArrayLike, log_shares: ArrayLike) -> ShapeFit | None:
        """Which candidate of each landmark fits those of the others.

        The score of an alignment is the product over the landmarks of their best candidate's share times a bivariate
        Cauchy density about the place that the alignment gives the landmark. The density's maximum counts as 1 at every
        scale: normalized, it would let a shape that has shrunk to two close candidates explain a poor film.

        Args:
            candidates: ``(K, M, 2)`` (x, y) of M candidates for each landmark.
            log_shares: ``(K, M)`` how likely each is by itself, as a logarithm; -inf or NaN where there is none.

        Returns:
            That of the best alignment; None where fewer than five landmarks have a candidate, or all lie in one place.
        """
        z = np.asarray(candidates, dtype=np.float64) @ np.array([1, 1j])
        shares = np.asarray(log_shares, dtype=np.float64)
        shares = np.where(np.isfinite(shares), shares, -np.inf)
        found = np.flatnonzero(np.isfinite(shares).any(axis=1))
        if len(found) < _FEWEST_LANDMARKS:
            return None
        mean = self.mean @ np.array([1, 1j])
        sure = found[np.argsort(-shares[found].max(axis=1), kind="stable")][:_ANCHORS]
        first, second = (sure[index] for index in np.triu_indices(len(sure), 1))
        apart = np.abs(mean[first] - mean[second]) > self.residual[first] + self.residual[second]
        first, second = first[apart], second[apart]
        turn = (z[first][:, :, None] - z[second][:, None]) / (mean[first] - mean[second])[:, None, None]
        shift = z[first][:, :, None] - turn * mean[first][:, None, None]
        given = np.isfinite(shares[first][:, :, None] + shares[second][:, None]) & (np.abs(turn) > 0)
        if not given.any():
            return None
        turn, shift = turn[given][:, None], shift[given][:, None]
        off = np.abs(z[found] - (turn * mean[found] + shift)[..., None])
        reach = (np.abs(turn) * self.residual[found])[..., None]
        likely = shares[found] - 1.5 * np.log1p((off / reach) ** 2)
        best = int(likely.max(axis=-1).sum(axis=-1).argmax())
        chosen = np.zeros(len(z), dtype=np.intp)
        chosen[found] = likely[best].argmax(axis=-1)
        similarity = np.array([turn[best, 0], shift[best, 0]])
        return ShapeFit(chosen, _apply(similarity, self.mean), abs(similarity[0]) * self.residual)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for ``model.json``."""
        return {"mean": self.mean.tolist(), "residual": self.residual.tolist()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any] | None) -> LandmarkShape | None:
        """The inverse of :meth:`to_dict`.

        Args:
            content: what it gave, or None.

        Returns:
            The shape, or None.
        """
        return None if content is None else cls(np.array(content["mean"]), np.array(content["residual"]))


def _aligned(source: FloatArray, target: FloatArray) -> Similarity:
    both = np.isfinite(source[:, 0]) & np.isfinite(target[:, 0])
    return _similarity(source[both], target[both], np.ones(int(both.sum())))


def shape_of_films(films: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Shape of the films that a run trains on, for ``model.json``.

    Args:
        films: datalist items with landmarks in pixels and ``spacing`` (row_mm, col_mm) or None.

    Returns:
        See :meth:`LandmarkShape.to_dict`; None where there are too few.
    """
    points = [landmarks_array(film) * np.array(film.get("spacing") or (1.0, 1.0))[::-1] for film in films]
    shape = LandmarkShape.fit(points)
    return None if shape is None else shape.to_dict()


def _highest_peaks(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``(K, M, 2)`` (x, y) of the highest peaks of ``(K, H, W)`` logits, and ``(K, M)`` logarithms of their shares.

    The maximum of a square block is a peak where no neighboring block has a higher one.
    """
    tops, index = F.max_pool2d(logits[None], _PEAK_PX, _PEAK_PX, ceil_mode=True, return_indices=True)
    peaks = torch.where(tops == F.max_pool2d(tops, 3, 1, 1), tops, -torch.inf)[0].flatten(1)
    highest, block = peaks.topk(min(_CANDIDATES, peaks.shape[1]))
    pixel, width = index[0].flatten(1).gather(1, block), logits.shape[-1]
    points = torch.stack((pixel % width, torch.div(pixel, width, rounding_mode="floor")), dim=-1)
    return points.to(logits.dtype), highest - logits.flatten(1).logsumexp(1, keepdim=True)


def _squared_distance(map_: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    """``(H, W)`` squared distance in pixels of a map's pixels from a point (x, y)."""
    rows, cols = (torch.arange(n) for n in map_.shape)
    return ((rows - point[1]) ** 2)[:, None] + ((cols - point[0]) ** 2)[None]


class DecodeLandmarksd(MapTransform):
    """Decode maps to landmarks in mm; what does not fit the shape is looked for again.

    Of the three highest peaks of each map those are taken that fit each other (:meth:`LandmarkShape.explain`), so that
    a landmark whose left and right are exchanged is corrected by the others. One that is still beyond ``gate`` times
    its usual distance is decoded near its expected place. One whose highest peak fits is left exactly as decoded.

    Args:
        keys: keys of ``(K, H, W)`` logits; the points ``(K, 2)`` in mm take their place.
        refer_key: key of the image on whose grid the maps lie.
        confidence_key: where the ``(K,)`` confidences go.
        expected_key: where the ``(K,)`` expected radial errors in mm go, see
            :func:`monai_landmark.uncertainty.expected_radial_error`.
        shape: what :func:`shape_of_films` gave, or None to trust the maps alone.
        gate: how many times its root-mean-square distance a landmark may be off.
        method: see :class:`monai_landmark.transforms.heatmap.DecodeHeatmap`.
        calibration: its scales turn the maps' expected radial errors into those of landmarks; None: they stay.
    """

    def __init__(
        self,
        keys: Any = "pred",
        refer_key: str = "image",
        confidence_key: str = "confidence",
        expected_key: str = "expected_error",
        shape: Mapping[str, Any] | None = None,
        gate: float = 4.0,
        method: Any = "local_soft_argmax",
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(keys)
        self.refer_key, self.confidence_key, self.gate = refer_key, confidence_key, gate
        self.expected_key = expected_key
        self.scales = torch.as_tensor(1.0 if calibration is None else calibration.scales)
        self.decode = DecodeHeatmap(method, from_logits=True)
        self.shape = LandmarkShape.from_dict(shape)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Decode the maps of one film.

        Args:
            data: an item with logits and the image.

        Returns:
            The item with landmarks in mm, float64, their confidence and their expected error.
        """
        decoded = dict(data)
        affine = decoded[self.refer_key].affine.cpu()
        for key in self.keys:
            logits = torch.as_tensor(decoded[key]).detach().float().cpu().contiguous()  # each map one block
            points, confidence = self.decode.decode_with_confidence(logits)
            for index, again in self._found_again(logits, points, affine):
                points[index] = again
                confidence[index] = self._mass_near(logits[index], again)
            points_mm = grid_to_mm(points, affine)
            expected = self.scales * expected_radial_error(logits, affine, points_mm)
            decoded |= {key: points_mm, self.confidence_key: confidence, self.expected_key: expected}
        return decoded

    def _found_again(
        self, logits: torch.Tensor, points: torch.Tensor, affine: Any
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Index and ``(2,)`` grid position of the landmarks that are not at their map's highest peak."""
        if self.shape is None:
            return
        peaks, log_shares = _highest_peaks(logits)
        fit = self.shape.explain(grid_to_mm(peaks, affine).numpy(), log_shares.numpy())
        if fit is None:
            return
        near = points.clone()
        for index in np.flatnonzero(fit.chosen):
            far = _squared_distance(logits[index], peaks[index, fit.chosen[index]]) > _PEAK_PX**2
            near[index] = self.decode(logits[index : index + 1].masked_fill(far, -torch.inf))[0]
        off = np.linalg.norm(grid_to_mm(near, affine).numpy() - fit.places, axis=-1) > self.gate * fit.reach
        for index in np.flatnonzero(off):
            prior = self._prior(torch.as_tensor(fit.places[index]), fit.reach[index], affine, logits.shape[-2:])
            near[index] = self.decode(logits[index : index + 1] + prior)[0]
        for index in np.flatnonzero(off | (fit.chosen > 0)):
            yield int(index), near[index]

    def _mass_near(self, logits: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
        """Share of the map's own probability, without the prior, within the decoder's radius of a point."""
        near = _squared_distance(logits, point) <= self.decode.confidence_radius_px**2
        share: torch.Tensor = logits.flatten().softmax(dim=0).view_as(logits)[near].sum()
        return share

    @staticmethod
    def _prior(place_mm: torch.Tensor, reach: float, affine: Any, size: Sequence[int]) -> torch.Tensor:
        """Log of a Gaussian about a place, ``(1, H, W)``; its standard deviation is the usual distance."""
        x, y = mm_to_grid(place_mm[None], affine)[0]
        rows, cols = (torch.arange(n, dtype=torch.float64) for n in size)
        step = grid_to_mm(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), affine)
        step_x, step_y = (step[1] - step[0]).norm(), (step[2] - step[0]).norm()
        squared = ((rows - y) * step_y)[:, None] ** 2 + ((cols - x) * step_x)[None] ** 2
        log_prior: torch.Tensor = -squared / (2.0 * reach**2)
        return log_prior[None].float()
