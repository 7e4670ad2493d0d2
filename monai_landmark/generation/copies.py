"""Whether a generative model hands out the films it was trained on: copies, and a test of membership.

Two likenesses are used. Of structure (:func:`monai_landmark.pretraining.memorization.film_structure`): correlation of
edges, maximal over small shifts and turns, blind to brightness and sharpness. Of features: the cosine in a network that
is named, less their mean. A drawn film is a copy where it is more like a training film than any two real films of
different patients are like one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional

from monai_landmark.errors import ConfigurationError
from monai_landmark.pretraining.memorization import film_similarities, film_structure
from monai_landmark.pretraining.samples import contact_sheet, write_picture
from monai_landmark.uncertainty.ranking import auroc

__all__ = [
    "Copies",
    "feature_likeness",
    "find_copies",
    "membership_test",
    "nearest_pair",
    "structure_likeness",
    "write_pairs",
]

_DRAWS = 1000  # of the bootstrap


def structure_likeness(films: torch.Tensor, pool: torch.Tensor) -> torch.Tensor:
    """How like each film is to every film of a pool, by its edges.

    Args:
        films: ``(N, 1, H, W)`` of any range.
        pool: ``(P, 1, H, W)``.

    Returns:
        ``(N, P)``, at most 1.
    """
    return film_similarities(films, film_structure(pool))


def feature_likeness(features: torch.Tensor, pool: torch.Tensor) -> torch.Tensor:
    """How like each film is to every film of a pool, by a network's features.

    Args:
        features: ``(N, D)``.
        pool: ``(P, D)``; its mean is taken off, for what all films share says nothing.

    Returns:
        ``(N, P)`` cosines.
    """
    center = pool.mean(0)
    return functional.normalize(features - center, dim=1) @ functional.normalize(pool - center, dim=1).T


def nearest_pair(
    likeness: torch.Tensor, patients: Sequence[str], one_exposure: Iterable[tuple[int, int]] = ()
) -> tuple[float, int, int]:
    """The two real films of different patients that are most like one another.

    Args:
        likeness: ``(P, P)`` of real films with one another.
        patients: ``(P,)``.
        one_exposure: pairs that show one exposure under two patients' names, as
            :func:`monai_landmark.data.duplicates.find_duplicates` finds them; they would excuse any copy.

    Returns:
        Their likeness and indices.

    Raises:
        ConfigurationError: if all films are of one patient.
    """
    names = np.array([str(patient) for patient in patients])
    apart = torch.from_numpy(names[:, None] != names[None])
    for first, second in one_exposure:
        apart[first, second] = apart[second, first] = False
    if not apart.any():
        raise ConfigurationError("no two patients", field="patients", value=len(set(names)), expected="at least two")
    both = torch.maximum(likeness, likeness.T).masked_fill(~apart, -torch.inf)
    index = int(both.argmax())
    return float(both.flatten()[index]), index // len(names), index % len(names)


@dataclass(frozen=True)
class Copies:
    """What was found of drawn films.

    Attributes:
        likeness: ``(N,)`` of each drawn film with its nearest training film.
        nearest: ``(N,)`` that film's index.
        threshold: above it a drawn film is a copy.
        pair: indices of the two real films that set the threshold.
    """

    likeness: NDArray[np.float64]
    nearest: NDArray[np.intp]
    threshold: float
    pair: tuple[int, int]

    @property
    def copied(self) -> NDArray[np.bool_]:
        """``(N,)`` which drawn films are copies."""
        return np.asarray(self.likeness > self.threshold)

    def describe(self, ids: Sequence[str] | Mapping[int, str]) -> dict[str, Any]:
        """The finding as JSON.

        Args:
            ids: of the training films.

        Returns:
            ``copies``, ``drawn``, ``threshold``, the ``pair`` that set it, ``median`` and ``highest`` likeness, and
            ``nearest``, the id of each drawn film's nearest training film.
        """
        return {
            "copies": int(self.copied.sum()),
            "drawn": len(self.likeness),
            "threshold": round(self.threshold, 4),
            "pair": [str(ids[int(index)]) for index in self.pair],
            "median": round(float(np.median(self.likeness)), 4),
            "highest": round(float(self.likeness.max()), 4),
            "nearest": [str(ids[int(index)]) for index in self.nearest],
        }


def find_copies(
    drawn: torch.Tensor,
    training: torch.Tensor,
    patients: Sequence[str],
    one_exposure: Iterable[tuple[int, int]] = (),
) -> Copies:
    """Count the drawn films that are too like a training film.

    Args:
        drawn: ``(N, P)`` likeness of drawn films with training films.
        training: ``(P, P)`` of training films with one another, by the same measure.
        patients: ``(P,)`` of the training films.
        one_exposure: see :func:`nearest_pair`.

    Returns:
        The finding.
    """
    likeness, nearest = drawn.max(dim=1)
    threshold, first, second = nearest_pair(training, patients, one_exposure)
    return Copies(likeness.double().numpy(), nearest.numpy().astype(np.intp), threshold, (first, second))


def membership_test(trained_on: ArrayLike, held_out: ArrayLike, seed: int = 0) -> dict[str, Any]:
    """Whether one can tell from the drawn films which real films the model was trained on.

    The attacker holds each real film against all drawn ones and calls those trained on that come nearest (Hayes et al.,
    "LOGAN", 2019; the distance attack of Chen et al., "GAN-Leaks", CCS 2020).

    Args:
        trained_on: ``(P,)`` likeness of each training film with its nearest drawn film.
        held_out: ``(H,)`` likewise of films of other patients that the model never saw.
        seed: of the bootstrap.

    Returns:
        ``auc`` (0.5: nothing leaks, 1: everything), its 95 % bootstrap ``interval`` over films, and ``n``.
    """
    members, others = np.asarray(trained_on, dtype=np.float64), np.asarray(held_out, dtype=np.float64)
    generator = np.random.default_rng(seed)
    drawn = [
        _auc(generator.choice(members, len(members)), generator.choice(others, len(others))) for _ in range(_DRAWS)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {
        "auc": round(_auc(members, others), 4),
        "interval": [round(float(low), 4), round(float(high), 4)],
        "n": [len(members), len(others)],
    }


def _auc(members: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    is_member = np.r_[np.ones(len(members)), np.zeros(len(others))]
    return auroc(np.r_[members, others], is_member, 0.5)


def write_pairs(
    path: str | PathLike[str],
    drawn: torch.Tensor,
    training: torch.Tensor,
    copies: Copies,
    ids: Sequence[str] | Mapping[int, str],
    count: int = 16,
) -> None:
    """Show the drawn films most like a training film, each left of that film; the last pair is the threshold's.

    Args:
        path: of the PNG.
        drawn: ``(N, 1, H, W)`` in [-1, 1].
        training: ``(P, 1, H, W)``.
        copies: the finding.
        ids: of the training films.
        count: of pairs.
    """
    films, captions = [], []
    for index in np.argsort(-copies.likeness)[:count].tolist():
        near = int(copies.nearest[index])
        films += [drawn[index], _fitted(training[near], drawn)]
        mark = "COPY " if copies.copied[index] else ""
        captions += [f"{mark}drawn {index + 1}: {copies.likeness[index]:.2f}", f"film {ids[near]}"[:32]]
    films += [_fitted(training[index], drawn) for index in copies.pair]
    captions += [f"threshold {copies.threshold:.2f}", f"film {ids[copies.pair[1]]}"[:32]]
    write_picture(path, contact_sheet(torch.stack(films), captions, columns=6))


def _fitted(film: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(film[None], size=like.shape[-2:], mode="area")[0]
