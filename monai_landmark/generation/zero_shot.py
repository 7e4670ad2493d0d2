"""Organs on films by a diffusion model that was never shown a label: from a handful of points, or one reference mask.

The paper (Jimenez-Perez et al., "DiNO-Diffusion", arXiv 2407.11594) reads lungs off a diffusion model's alignment with
anatomy. Here the feature maps inside the noised network bring all films onto their mean
(:class:`~monai_landmark.generation.atlas.FeatureAtlas`); points, or the mask of one film, mark the organ there once;
from there it goes to every film. What is known beforehand is exactly that: the points or the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve
from torch.nn import functional

from monai_landmark.errors import ConfigurationError
from monai_landmark.generation.atlas import FeatureAtlas, FeatureBasis
from monai_landmark.generation.model import Generator
from monai_landmark.networks import FeatureTaps
from monai_landmark.pretraining.samples import keyed_noise

__all__ = ["FilmFeatures", "GeneratorFeatures", "ZeroShotSegmenter", "film_maps", "spread_points"]

FilmFeatures = Callable[[torch.Tensor], Mapping[str, torch.Tensor]]
"""``(B, 1, H, W)`` films in [-1, 1] -> level -> ``(B, C, h, w)``, e.g. :class:`FrozenFeatures` at a noise level."""
Points = Sequence[tuple[float, float]]

_SHARPNESS = 10.0  # how much less likely a step across a feature edge is
_LEAK = 1e-6  # no edge is closed, so that every cell is reached
_SMALLEST = 0.02  # share of the film; smaller pieces are dropped
_PIECES = 2  # at most: there are two lungs


class GeneratorFeatures:
    """Feature maps of a diffusion model that is told a film's embedding, for films noised to some timesteps.

    Args:
        generator: the model.
        levels: see :class:`~monai_landmark.networks.FeatureTaps`.
        timesteps: of the model's T; the maps of several are concatenated.
        told: whether the network is told the film's own embedding.
        seed: of the noise, which is the same for every film.
    """

    def __init__(
        self,
        generator: Generator,
        levels: Sequence[str],
        timesteps: Sequence[int],
        told: bool = True,
        seed: int = 0,
    ) -> None:
        self.generator, self.levels, self.timesteps = generator, tuple(levels), tuple(timesteps)
        self.told, self.seed = told, seed

    @torch.no_grad()
    def __call__(self, films: torch.Tensor) -> dict[str, torch.Tensor]:
        """Maps of films.

        Args:
            films: ``(B, 1, H, W)`` in [-1, 1], of the model's size.

        Returns:
            Level -> ``(B, C, h, w)``.
        """
        objective = self.generator.objective
        films = films.to(self.generator.device)
        clean = objective.encode(films)
        tokens = self.generator.embedder(films) if self.told else None
        passes: list[dict[str, torch.Tensor]] = []
        with FeatureTaps(objective.network, self.levels) as taps:
            for number, timestep in enumerate(self.timesteps):
                noise = keyed_noise(self.seed + number, 1, clean.shape[1:]).to(clean).expand_as(clean)
                steps = torch.full((len(films),), int(timestep), device=clean.device)
                objective.predict(objective.noisy(clean, noise, steps), steps, tokens)
                passes.append(dict(taps.features))
        return {level: torch.cat([maps[level] for maps in passes], dim=1).cpu() for level in self.levels}


def film_maps(features: FilmFeatures, films: torch.Tensor, batch_size: int = 4) -> dict[str, torch.Tensor]:
    """Feature maps of many films.

    Args:
        features: of a batch.
        films: ``(N, 1, H, W)`` in [-1, 1].
        batch_size: films at a time.

    Returns:
        Level -> ``(N, C, h, w)`` in half precision.
    """
    parts = [features(batch) for batch in torch.split(films, batch_size)]
    return {level: torch.cat([part[level].detach().half().cpu() for part in parts]) for level in parts[0]}


def spread_points(descriptors: torch.Tensor, inside: Points, outside: Points) -> torch.Tensor:
    """What belongs to some points rather than to others, by the random walker (Grady, TPAMI 2006).

    A walker steps between neighbouring cells, the more readily the more alike they are to the network; the value of a
    cell is the probability that it meets a point inside before one outside.

    Args:
        descriptors: ``(C, h, w)`` of unit length.
        inside: (x, y) as shares of width and height.
        outside: likewise.

    Returns:
        ``(h, w)`` in [0, 1].

    Raises:
        ConfigurationError: if a kind of points is missing, a point lies off the film, or two kinds share a cell.
    """
    height, width = descriptors.shape[-2:]
    seeds = _seeds(inside, outside, height, width)
    cells = np.arange(height * width).reshape(height, width)
    first = np.concatenate([cells[:, :-1].ravel(), cells[:-1].ravel()])
    second = np.concatenate([cells[:, 1:].ravel(), cells[1:].ravel()])
    looks = descriptors.flatten(1).double().numpy()
    weight = np.exp(-_SHARPNESS * (1 - (looks[:, first] * looks[:, second]).sum(0))) + _LEAK
    both = np.r_[weight, weight], (np.r_[first, second], np.r_[second, first])
    graph = sparse.coo_matrix(both, shape=(cells.size, cells.size)).tocsr()
    laplacian = (sparse.diags(np.asarray(graph.sum(axis=1)).ravel()) - graph).tocsr()
    known = np.array(list(seeds))
    values = np.array([seeds[cell] for cell in seeds])
    free = np.setdiff1d(cells.ravel(), known)
    solved = np.zeros(cells.size)
    solved[known] = values
    solved[free] = spsolve(laplacian[free][:, free].tocsc(), -(laplacian[free][:, known] @ values))
    return torch.from_numpy(solved.reshape(height, width)).float().clamp(0, 1)


def _seeds(inside: Points, outside: Points, height: int, width: int) -> dict[int, float]:
    """Cell -> 1 inside, 0 outside."""
    seeds: dict[int, float] = {}
    for name, points, value in (("inside", inside, 1.0), ("outside", outside, 0.0)):
        if not points:
            raise ConfigurationError("no point", field=name, value=0, expected="at least one")
        for x, y in points:
            cell = int(y * height) * width + int(x * width)
            if not (0 <= x < 1 and 0 <= y < 1) or seeds.get(cell, value) != value:
                raise ConfigurationError(
                    "a point off the film, or in the cell of one of the other kind",
                    field=name,
                    value=(x, y),
                    expected="shares of width and height from 0 to 1",
                )
            seeds[cell] = value
    return seeds


class ZeroShotSegmenter:
    """Segments films by what a frozen diffusion network sees, without training and without labels of its own.

    Args:
        features: of the frozen network.
        films: ``(N, 1, H, W)`` unlabelled films in [-1, 1]: the mean is made of them.
        cells: ``(h, w)`` grid of the descriptors.
        rounds: see :class:`~monai_landmark.generation.atlas.FeatureAtlas`.
        components: see :class:`~monai_landmark.generation.atlas.FeatureBasis`.

    Attributes:
        atlas: the mean of the films; ``atlas.likeness.argmax()`` is the film worth a reference mask.
    """

    def __init__(
        self,
        features: FilmFeatures,
        films: torch.Tensor,
        cells: Sequence[int] = (32, 40),
        rounds: int = 3,
        components: int = 24,
    ) -> None:
        self.features = features
        maps = film_maps(features, films)
        self.basis = FeatureBasis.fit(maps, cells, components)
        self.atlas = FeatureAtlas(self.basis(maps), rounds)

    def places(self, films: torch.Tensor) -> torch.Tensor:
        """Register films to the mean, once for all that is asked of them.

        Args:
            films: ``(N, 1, H, W)`` in [-1, 1].

        Returns:
            ``(N, h, w, 2)``, see :meth:`~monai_landmark.generation.atlas.FeatureAtlas.register`.
        """
        return self.atlas.register(self.basis(film_maps(self.features, films)))

    def from_points(self, inside: Points, outside: Points) -> torch.Tensor:
        """The organ on the mean, from points set once on the mean.

        Args:
            inside: (x, y) as shares of width and height of the mean film.
            outside: likewise.

        Returns:
            ``(1, 1, h, w)`` probabilities.
        """
        return spread_points(self.atlas.mean[0], inside, outside)[None, None]

    def from_masks(self, masks: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """The organ on the mean, from the mask of one film or of several.

        Args:
            masks: ``(M, 1, H, W)`` in [0, 1].
            places: of these films, see :meth:`places`.

        Returns:
            ``(1, 1, h, w)`` probabilities.
        """
        small = functional.adaptive_avg_pool2d(masks.float(), self.basis.cells)
        return self.atlas.onto_mean(small, places).mean(0, keepdim=True)

    def segment(self, organ: torch.Tensor, places: torch.Tensor, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Bring the organ from the mean onto films.

        Args:
            organ: ``(1, 1, h, w)`` probabilities on the mean.
            places: of the films.
            size: ``(H, W)`` of the masks.

        Returns:
            ``(N, H, W)`` masks: the two largest pieces, holes filled.
        """
        likely = functional.interpolate(self.atlas.onto_films(organ, places), size, mode="bilinear")
        return np.stack([_tidied(mask) for mask in (likely[:, 0] > 0.5).numpy()])


def _tidied(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest pieces without holes."""
    pieces, count = ndimage.label(mask)
    areas = np.bincount(pieces.ravel(), minlength=count + 1)
    areas[0] = 0
    kept = [piece for piece in np.argsort(-areas)[:_PIECES] if areas[piece] >= _SMALLEST * mask.size]
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(np.isin(pieces, kept))
    return filled
