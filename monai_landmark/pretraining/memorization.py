"""Early signs that a diffusion network learns films by heart: the nearest training film of each of its samples.

Films are compared by their structure: at most 64 x 64 pixels, local mean off, local contrast divided out, so that
neither brightness nor the outline that all films share decides. Similarity is the normalized cross-correlation, maximal
over small shifts and turns, because training shifts and turns the films. How near is too near is read off films that
the network cannot know: one in a hundred of them is nearer to a training film than the threshold. Tried on 240
lateral cephalograms and on 240 chest films, 120 each to train on: of copies turned, scaled and shifted as in training
and then blurred to a third, 97 % and 99 % have their own film as the nearest, and 45 % and 68 % pass the threshold.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch.nn import functional
from torch.utils.data import Subset

from monai_landmark.errors import ConfigurationError
from monai_landmark.pretraining.samples import SampleHandler, contact_sheet, write_picture
from monai_landmark.pretraining.validation import History
from monai_landmark.privacy import log_name

__all__ = ["MemorizationHandler", "film_similarities", "film_structure", "nearest_films"]

_LOGGER = logging.getLogger(__name__)
_SIDE = 64  # longest side of the structure
_SHIFT = 4  # largest shift tried, in pixels of the structure: 6 % of the film
_TURNS = (-3.0, 0.0, 3.0)  # degrees
_SHOWN = 8  # pairs in a picture
_MOST_FILMS = 8192  # to compare with; 10 kB each, and as many as `cache_films` keeps in memory


def film_structure(films: torch.Tensor) -> torch.Tensor:
    """What is compared of a film.

    Args:
        films: ``(N, 1, H, W)`` of any range.

    Returns:
        ``(N, h, w)`` float32 of zero mean and unit norm, the longer side 64; zero for a film without structure.
    """
    height, width = films.shape[-2:]
    size = [max(1, round(side * _SIDE / max(height, width))) for side in (height, width)]
    small = functional.interpolate(films.float(), size=size, mode="area")
    scaled = (small - small.mean((2, 3), keepdim=True)) / small.std((2, 3), keepdim=True).clamp_min(1e-6)
    detail = scaled - _local_mean(scaled)
    local = detail / (_local_mean(detail.square()) + 0.1**2).sqrt()  # the floor keeps noise in flat parts from growing
    centered = (local - local.mean((2, 3), keepdim=True))[:, 0]
    unit: torch.Tensor = centered / centered.flatten(1).norm(dim=1)[:, None, None].clamp_min(1e-6)
    return unit


def _local_mean(image: torch.Tensor) -> torch.Tensor:
    mean: torch.Tensor = functional.avg_pool2d(image, 9, stride=1, padding=4, count_include_pad=False)
    return mean


def nearest_films(films: torch.Tensor, structures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The most similar film of a pool for each film.

    Args:
        films: ``(N, 1, H, W)``.
        structures: ``(P, h, w)`` of the pool, from :func:`film_structure`.

    Returns:
        ``(N,)`` similarities, at most 1, and ``(N,)`` indices into the pool.
    """
    similarity, nearest = film_similarities(films, structures).max(dim=1)
    return similarity, nearest


def film_similarities(films: torch.Tensor, structures: torch.Tensor) -> torch.Tensor:
    """How similar each film is to every film of a pool.

    Args:
        films: ``(N, 1, H, W)``.
        structures: ``(P, h, w)`` of the pool, from :func:`film_structure`.

    Returns:
        ``(N, P)``, at most 1.
    """
    pool = structures.flatten(1).T
    best = torch.full((len(films), len(structures)), -math.inf)
    pixels = torch.arange(structures[0].numel()).view_as(structures[0])
    shifts = itertools.product(range(-_SHIFT, _SHIFT + 1), repeat=2)
    shifted = torch.stack([pixels.roll(shift, (0, 1)).flatten() for shift in shifts])
    for turn in _TURNS:
        for index, structure in enumerate(film_structure(_turned(films, turn))):
            best[index] = best[index].maximum((structure.flatten()[shifted] @ pool).amax(0))
    return best


def _turned(films: torch.Tensor, degrees: float) -> torch.Tensor:
    """Films turned about their center, edges repeated."""
    if not degrees:
        return films
    height, width = films.shape[-2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.tensor([[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]])
    grid = functional.affine_grid(matrix[None].expand(len(films), -1, -1), list(films.shape), align_corners=False)
    return functional.grid_sample(films, grid, padding_mode="border", align_corners=False)


class MemorizationHandler:
    """Hold every sample against the training films, whenever samples are drawn, and warn when more of them are copies.

    The number is the share of samples that are nearer to a training film than all but one in a hundred held-out films
    are: about 0.01 for a network that makes new films (somewhat more when few are held out), towards 1 for one that
    repeats what it was shown. Samples beside their nearest films go to ``step_<number>_nearest.png``.

    Args:
        samples: draws the samples, and says how often and where to.
        training: the films trained on, not augmented, at any size of the network's proportions; items with ``image``
            and ``id``. Of more than 8,192 films a part, evenly spread, is compared with.
        held_out: films not trained on, of other patients, likewise.
        path: the JSON file that receives the history.
        writer: a TensorBoard ``SummaryWriter`` that receives share and picture too.
    """

    def __init__(
        self,
        samples: SampleHandler,
        training: Sequence[Any],
        held_out: Sequence[Any],
        path: str | PathLike[str],
        writer: Any = None,
    ) -> None:
        self.samples, self.held_out, self.writer = samples, held_out, writer
        every = max(1, -(-len(training) // _MOST_FILMS))
        self.training: Sequence[Any] | Subset[Any] = training
        if every > 1:
            self.training = Subset(training, range(0, len(training), every))  # type: ignore[arg-type]
        self.history = History(Path(path))

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Args:
            engine: the trainer.
        """
        self.history.attach(engine)
        engine.add_event_handler(Events.STARTED, self._prepare)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.samples.every_epochs) | Events.COMPLETED, self)

    def _prepare(self, engine: Engine) -> None:
        """Learn how near films come to the training films that have nothing to do with them."""
        if not len(self.training) or not len(self.held_out):
            raise ConfigurationError(
                "nothing to compare samples with",
                field="training, held_out",
                value=(len(self.training), len(self.held_out)),
                expected="at least one film each",
            )
        self.structures = torch.cat([film_structure(self._film(self.training[i])) for i in range(len(self.training))])
        expected = torch.cat([nearest_films(self._film(item), self.structures)[0] for item in self.held_out])
        self.usual = float(expected.median())
        self.threshold = float(np.percentile(expected.numpy(), 99))

    def _film(self, item: Any) -> torch.Tensor:
        """One film ``(1, 1, H, W)``, refused where it has not the samples' proportions."""
        film = torch.as_tensor(np.asarray(item["image"]), dtype=torch.float32)[None]
        height, width = self.samples.films.shape[-2:]
        if film.shape[-2] * width != film.shape[-1] * height:
            raise ConfigurationError(
                "the films compared have not the proportions of the network's grid",
                field="training, held_out",
                value=tuple(film.shape[-2:]),
                expected=f"a multiple of {(height, width)}",
            )
        return film

    def __call__(self, engine: Engine) -> None:
        """Compare the samples of the current step, log, write, and warn.

        Args:
            engine: the trainer.
        """
        step, records = engine.state.iteration, self.history.records
        if self.history.has(step):
            return
        samples = self.samples.latest(engine)
        similarity, nearest = nearest_films(samples, self.structures)
        share = float((similarity > self.threshold).float().mean())
        grown = share > (records[-1]["share"] if records else 0.0)
        ids = [log_name(str(self.training[int(index)].get("id", int(index)))) for index in nearest]
        record = {"step": step, "epoch": engine.state.epoch, "share": share, "nearest": ids}
        record["similarity"] = [round(float(value), 4) for value in similarity]
        self.history.add(
            record, threshold=self.threshold, usual=self.usual, training=len(self.training), held_out=len(self.held_out)
        )
        log = _LOGGER.warning if grown else _LOGGER.info
        log(
            "%d of %d samples are nearer to a training film than 99 %% of held-out films are (similarity above %.3f; "
            "median %.3f, of held-out films %.3f)%s",
            *(round(share * len(samples)), len(samples), self.threshold, float(similarity.median()), self.usual),
            ": more than before, the network may be learning films by heart" if grown else "",
        )
        self._show(step, samples, similarity, nearest, ids)
        if self.writer is not None:
            self.writer.add_scalar("memorization/share", share, step)

    def _show(
        self, step: int, samples: torch.Tensor, similarity: torch.Tensor, nearest: torch.Tensor, ids: Sequence[str]
    ) -> None:
        """The most similar pairs side by side, sample on the left."""
        films, captions = [], []
        for index in similarity.argsort(descending=True)[:_SHOWN].tolist():
            film = self._film(self.training[int(nearest[index])])
            films += [samples[index], functional.interpolate(film, size=samples.shape[-2:], mode="area")[0]]
            captions += [f"sample {index + 1}: similarity {float(similarity[index]):.2f}", f"film {ids[index]}"[:32]]
        picture = contact_sheet(torch.stack(films), captions, columns=4)
        write_picture(self.samples.folder / f"step_{step:07d}_nearest.png", picture)
        if self.writer is not None:
            self.writer.add_image("nearest", picture, step, dataformats="HW")
