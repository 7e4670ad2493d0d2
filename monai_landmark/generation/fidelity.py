"""How far one set of films is from another: FID, sFID, KID, precision and recall, density and coverage.

Every number depends on the network whose features are compared and on how many films there are: FID grows as n falls.
So :func:`fidelity` names the network and gives beside every number the same number of real films against other real
films, as many of them. What the libraries have takes pictures, or fails on what films come with: MONAI's ``FIDMetric``
takes the square root of a D x D matrix, minutes for the thousands of features of sFID, and stops on the imaginary part
that it has where films are fewer than features. Here the trace comes from the n x n singular values instead; the
numbers are MONAI's where it has one (tested).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from monai_landmark.errors import ConfigurationError

__all__ = [
    "fidelity",
    "frechet_distance",
    "kernel_distance",
    "manifold_measures",
    "spatial_features",
    "token_features",
]

_SPATIAL_CHANNELS = 7  # as Nash et al. take of Inception's 768
_ROWS = 1024  # of a distance matrix at a time


def token_features(tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is compared of the tokens of a :class:`~monai_landmark.generation.embedding.FilmEmbedder`.

    Args:
        tokens: ``(N, 1 + patches ** 2, D)``.

    Returns:
        ``pooled`` ``(N, D)``, and ``spatial`` ``(N, 7 * patches ** 2)`` where there are tokens of places.
    """
    pooled = {"pooled": tokens[:, 0].float()}
    if tokens.shape[1] == 1:
        return pooled
    return {**pooled, "spatial": tokens[:, 1:, :_SPATIAL_CHANNELS].flatten(1).float()}


def spatial_features(maps: torch.Tensor, channels: int = _SPATIAL_CHANNELS) -> torch.Tensor:
    """Features of places, for sFID (Nash et al., "Generating images with sparse representations", ICML 2021).

    Args:
        maps: ``(N, C, h, w)`` from the middle of a network.
        channels: how many of them, from the first.

    Returns:
        ``(N, channels * h * w)``.
    """
    return maps[:, :channels].flatten(1).float()


def frechet_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Fréchet distance of two normal distributions fitted to features (FID: Heusel et al., NeurIPS 2017).

    With centered features A and B, tr sqrt(S_A S_B) is the nuclear norm of A B^T / sqrt((n - 1)(m - 1)).

    Args:
        first: ``(N, D)`` features, at least two films.
        second: ``(M, D)``.

    Returns:
        The distance, 0 for equal means and covariances.
    """
    _refuse_unlike(first, second)
    a, b = (given.double() / (len(given) - 1) ** 0.5 for given in (first, second))
    a, b = a - a.mean(0), b - b.mean(0)
    offset = (first.double().mean(0) - second.double().mean(0)).square().sum()
    cross = torch.linalg.svdvals(a @ b.T).sum()
    return float((offset + a.square().sum() + b.square().sum() - 2 * cross).clamp_min(0))


def kernel_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Unbiased squared maximum mean discrepancy under the kernel (x.y / D + 1)^3 (KID: Binkowski et al., ICLR 2018).

    Over all films at once, not over random subsets of them: the same number whenever it is asked for.

    Args:
        first: ``(N, D)`` features, at least two films.
        second: ``(M, D)``.

    Returns:
        The distance; about 0, and sometimes below it, for films of one distribution.
    """
    _refuse_unlike(first, second)
    first, second = first.double(), second.double()

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """(x . y / D + 1)^3 of all pairs."""
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: torch.Tensor) -> torch.Tensor:
        """Its mean over all pairs of two different films."""
        values = kernel(x, x)
        return (values.sum() - values.diagonal().sum()) / (len(x) * (len(x) - 1))

    return float(within(first) + within(second) - 2 * kernel(first, second).mean())


def manifold_measures(real: torch.Tensor, drawn: torch.Tensor, neighbors: int = 5) -> dict[str, float]:
    """Whether drawn films look like real ones, and whether all kinds of real ones are drawn.

    A ball around every film reaches to its k-th nearest film of its own set. Precision: the share of drawn films in
    the ball of a real one; recall: of real films in the ball of a drawn one (Kynkäänniemi et al., NeurIPS 2019).
    Density: in how many balls of real films a drawn one is, over k; coverage: the share of real films with a drawn one
    in their ball (Naeem et al., ICML 2020; unlike recall not spoiled by drawn outliers).

    Args:
        real: ``(N, D)`` features.
        drawn: ``(M, D)``.
        neighbors: k.

    Returns:
        ``precision``, ``recall``, ``f1``, ``density``, ``coverage``.

    Raises:
        ConfigurationError: if there are too few films for k neighbors.
    """
    _refuse_unlike(real, drawn)
    if min(len(real), len(drawn)) <= neighbors:
        raise ConfigurationError(
            "too few films",
            field="neighbors",
            value=(len(real), len(drawn)),
            expected=f"more than {neighbors} on either side",
        )
    real_reach, drawn_reach = _reach(real, neighbors), _reach(drawn, neighbors)
    between = _distances(real, drawn)
    in_real, in_drawn = between <= real_reach[:, None], between <= drawn_reach[None]
    precision, recall = float(in_real.any(0).float().mean()), float(in_drawn.any(1).float().mean())
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(precision + recall, 1e-12),
        "density": float(in_real.float().sum(0).mean()) / neighbors,
        "coverage": float(in_real.any(1).float().mean()),
    }


def _reach(features: torch.Tensor, neighbors: int) -> torch.Tensor:
    """``(N,)`` distance of the k-th nearest other film."""
    distances = _distances(features, features)
    distances.fill_diagonal_(torch.inf)
    return distances.kthvalue(neighbors, dim=1).values


def _distances(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """``(N, M)``; not by the shortcut that loses small ones to rounding."""
    parts = [
        torch.cdist(rows, second.double(), compute_mode="donot_use_mm_for_euclid_dist")
        for rows in torch.split(first.double(), _ROWS)
    ]
    return torch.cat(parts)


def _refuse_unlike(first: torch.Tensor, second: torch.Tensor) -> None:
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise ConfigurationError(
            "features that cannot be compared",
            field="features",
            value=(tuple(first.shape), tuple(second.shape)),
            expected="(N, D) and (M, D), at least two films each",
        )


def fidelity(
    real: Mapping[str, torch.Tensor],
    drawn: Mapping[str, torch.Tensor],
    others: Mapping[str, torch.Tensor],
    network: str,
    seed: int = 0,
    neighbors: int = 5,
) -> dict[str, Any]:
    """All measures of drawn films against real ones, beside those of other real films.

    Args:
        real: ``pooled`` ``(N, D)`` features of real films, ``spatial`` where there are some.
        drawn: of drawn films.
        others: of real films of other patients: the reference.
        network: whose features they are, by name; a number without it means nothing.
        seed: draws as many films of each as the fewest of the three have.
        neighbors: see :func:`manifold_measures`.

    Returns:
        ``network``, ``n``, and by measure (``fid``, ``sfid``, ``kid``, ``precision`` ...) a pair ``drawn`` and
        ``reference``.
    """
    count = min(len(given["pooled"]) for given in (real, drawn, others))
    generator = np.random.default_rng(seed)

    def some(given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """As many films of a set as the smallest set has."""
        chosen = torch.from_numpy(generator.permutation(len(given["pooled"]))[:count])
        return {kind: features[chosen] for kind, features in given.items()}

    kept = some(real)
    sides = {"drawn": _measures(kept, some(drawn), neighbors), "reference": _measures(kept, some(others), neighbors)}
    names = sides["drawn"].keys() & sides["reference"].keys()
    pairs = {name: {side: values[name] for side, values in sides.items()} for name in sorted(names)}
    return {"network": network, "n": count, **pairs}


def _measures(real: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], neighbors: int) -> dict[str, float]:
    pooled = real["pooled"], other["pooled"]
    found = {"fid": frechet_distance(*pooled), "kid": kernel_distance(*pooled)}
    if "spatial" in real and "spatial" in other:
        found["sfid"] = frechet_distance(real["spatial"], other["spatial"])
    return {**found, **manifold_measures(*pooled, neighbors)}
