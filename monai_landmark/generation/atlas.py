"""Films brought onto their common mean by what a frozen network sees in them: one anatomy, one place.

The mean of the feature maps of many unlabelled films is blurred, films registered to it give a sharper mean, and so on
(congealing: Learned-Miller, "Data driven image models through continuous joint alignment", TPAMI 2006). What is
marked once on the mean then lies on every film. No network is trained and no label goes in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from monai_landmark.errors import ConfigurationError

__all__ = ["FeatureAtlas", "FeatureBasis"]

_CONTROLS = (6, 7)  # control points of the free deformation, rows and columns
_STEPS = (30, 60)  # of the optimizer: an affine map, then the free deformation with it
_RATE = 0.01  # of the optimizer; the grid runs from -1 to 1
_STIFFNESS = 1.0  # of the deformation, against a similarity of at most 1
_INVERSIONS = 15
_BATCH = 32  # films registered together


@dataclass(frozen=True)
class FeatureBasis:
    """What of a network's feature maps tells places apart, learned from unlabelled films: principal components.

    Attributes:
        levels: level -> ``(C, k)`` components of the standardized channels and ``(C,)`` their mean.
        cells: ``(h, w)`` grid that all levels are brought to.
    """

    levels: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    cells: tuple[int, int]

    @classmethod
    def fit(cls, features: Mapping[str, torch.Tensor], cells: Sequence[int], components: int = 24) -> FeatureBasis:
        """Learn the basis.

        Args:
            features: level -> ``(N, C, h, w)`` of unlabelled films.
            cells: ``(h, w)`` of the common grid.
            components: kept of each level, at most.

        Returns:
            The basis.
        """
        size, levels = (int(cells[0]), int(cells[1])), {}
        for level, maps in features.items():
            rows = _standardized(maps, size).permute(0, 2, 3, 1).flatten(0, 2)
            center = rows.mean(0)
            _, vectors = torch.linalg.eigh((rows - center).T @ (rows - center))
            levels[level] = (vectors[:, -components:].contiguous(), center)
        return cls(levels, size)

    def __call__(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Describe every cell of films.

        Args:
            features: level -> ``(N, C, h, w)``, the levels that the basis was learned from.

        Returns:
            ``(N, L * k, h, w)`` of unit length, every level of the same weight: products are cosines.
        """
        parts = []
        for level, (vectors, center) in self.levels.items():
            maps = _standardized(features[level], self.cells) - center[:, None, None]
            parts.append(functional.normalize(torch.einsum("nchw,ck->nkhw", maps, vectors), dim=1))
        described: torch.Tensor = torch.cat(parts, dim=1) / len(parts) ** 0.5
        return described


def _standardized(maps: torch.Tensor, cells: tuple[int, int]) -> torch.Tensor:
    """On the common grid, each channel of mean 0 and deviation 1 over the film."""
    maps = maps.float()
    if maps.shape[-2] > cells[0]:
        maps = functional.adaptive_avg_pool2d(maps, cells)
    elif maps.shape[-2:] != cells:
        maps = functional.interpolate(maps, size=cells, mode="bilinear", align_corners=False)
    spread, mean = torch.std_mean(maps, dim=(-2, -1), keepdim=True)
    standardized: torch.Tensor = (maps - mean) / spread.clamp_min(1e-6)
    return standardized


class FeatureAtlas:
    """The mean of films in one another's place.

    Args:
        descriptors: ``(N, C, h, w)`` of unlabelled films, of unit length (:class:`FeatureBasis`).
        rounds: of registering the films to their mean and taking the mean again; 0: films stay where they are.

    Attributes:
        mean: ``(1, C, h, w)`` mean descriptor of the registered films, of unit length.
        grids: ``(N, h, w, 2)`` of the films that it was made of, see :meth:`register`.
        likeness: ``(N,)`` mean cosine of each of those films with the mean: the most typical film has the highest.

    Raises:
        ConfigurationError: if there is no film.
    """

    def __init__(self, descriptors: torch.Tensor, rounds: int = 3) -> None:
        if not len(descriptors):
            raise ConfigurationError("no film to make a mean of", field="descriptors", value=0, expected="at least one")
        self.rounds = rounds
        self.mean = functional.normalize(descriptors.mean(0, keepdim=True), dim=1)
        self.grids = _identity(len(descriptors), descriptors.shape[-2:])
        for _ in range(rounds):
            self.grids = self.register(descriptors)
            self.mean = functional.normalize(_sampled(descriptors, self.grids).mean(0, keepdim=True), dim=1)
        self.likeness = (_sampled(descriptors, self.grids) * self.mean).sum(1).mean((1, 2))

    def register(self, descriptors: torch.Tensor) -> torch.Tensor:
        """Find each film's place.

        Args:
            descriptors: ``(N, C, h, w)``.

        Returns:
            ``(N, h, w, 2)``: for every cell of the mean, where on the film it lies, as
            :func:`torch.nn.functional.grid_sample` takes it.
        """
        if not self.rounds:
            return _identity(len(descriptors), descriptors.shape[-2:])
        parts = torch.split(descriptors, _BATCH)
        return torch.cat([self._register(part) for part in parts])

    @torch.enable_grad()
    def _register(self, descriptors: torch.Tensor) -> torch.Tensor:
        count = len(descriptors)
        affine = torch.zeros(count, 2, 3, requires_grad=True)
        bending = torch.zeros(count, 2, *_CONTROLS, requires_grad=True)
        for free, steps in zip(([affine], [affine, bending]), _STEPS, strict=True):
            optimizer = torch.optim.Adam(free, lr=_RATE)
            for _ in range(steps):
                likeness = (_sampled(descriptors, self._grid(affine, bending)) * self.mean).sum(1).mean((1, 2))
                energy = bending.diff(dim=2).square().mean((1, 2, 3)) + bending.diff(dim=3).square().mean((1, 2, 3))
                loss = (_STIFFNESS * energy - likeness).sum()  # films do not see each other: each has its own terms
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return self._grid(affine, bending).detach()

    def _grid(self, affine: torch.Tensor, bending: torch.Tensor) -> torch.Tensor:
        size = self.mean.shape[-2:]
        whole = torch.eye(2, 3) + affine
        grid = functional.affine_grid(whole, [len(whole), 1, *size], align_corners=False)
        free = functional.interpolate(bending, size=size, mode="bicubic", align_corners=True)
        return grid + free.permute(0, 2, 3, 1)

    @staticmethod
    def onto_mean(maps: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        """Bring maps of films onto the mean.

        Args:
            maps: ``(N, C, H, W)`` at any resolution: films, masks or descriptors.
            grids: of the films, see :meth:`register`.

        Returns:
            ``(N, C, h, w)``.
        """
        return _sampled(maps, grids)

    @staticmethod
    def onto_films(maps: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        """Bring what is marked on the mean onto films, through the inverse of their registration.

        The inverse displacement v of u solves v(x) = -u(x + v(x)), by fixed-point iteration (Chen et al., "A simple
        fixed-point approach to invert a deformation field", Medical Physics 2008).

        Args:
            maps: ``(1, C, h, w)`` on the mean.
            grids: of the films, see :meth:`register`.

        Returns:
            ``(N, C, h, w)``.
        """
        still = _identity(len(grids), grids.shape[1:3])
        shift = (grids - still).permute(0, 3, 1, 2)
        back = torch.zeros_like(still)
        for _ in range(_INVERSIONS):
            back = -_sampled(shift, still + back).permute(0, 2, 3, 1)
        return _sampled(maps.expand(len(grids), -1, -1, -1), still + back)


def _identity(count: int, size: Sequence[int]) -> torch.Tensor:
    return functional.affine_grid(torch.eye(2, 3).expand(count, 2, 3), [count, 1, *size], align_corners=False)


def _sampled(maps: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
    return functional.grid_sample(maps, grids, padding_mode="border", align_corners=False)
