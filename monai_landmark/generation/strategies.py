"""Which embeddings films are drawn from: those of real films, or places between and around them.

The strategies of DiNO-Diffusion (Jimenez-Perez et al., arXiv 2407.11594) over the manifold of embeddings:

films        the embedding of a real film, and so another film of what it shows
interpolate  a place on the great circle between two films; of one class, where classes are known
neighborhood a place among a film and the films nearest to it
start        the embedding of a film, and the film itself, noised to a strength, in place of pure noise
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from monai_landmark.errors import ConfigurationError

__all__ = ["STRATEGIES", "Plan", "plan_films", "slerp"]

STRATEGIES = ("films", "interpolate", "neighborhood", "start")


@dataclass(frozen=True)
class Plan:
    """What one film is drawn from.

    Attributes:
        tokens: ``(N, D)``.
        films: places of the real films that had a part, the first one first.
        facts: how, for the manifest.
    """

    tokens: torch.Tensor
    films: tuple[int, ...]
    facts: dict[str, Any] = field(default_factory=dict)


def slerp(first: torch.Tensor, second: torch.Tensor, share: float | torch.Tensor) -> torch.Tensor:
    """Spherical linear interpolation (Shoemake, SIGGRAPH 1985) of directions, linear of lengths.

    Args:
        first: ``(..., D)``.
        second: of the same shape.
        share: 0 gives the first, 1 the second.

    Returns:
        Of the same shape.
    """
    lengths = [vector.norm(dim=-1, keepdim=True).clamp_min(1e-12) for vector in (first, second)]
    one, other = first / lengths[0], second / lengths[1]
    angle = (one * other).sum(-1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    weights = [torch.sin((1 - share) * angle) / sine, torch.sin(share * angle) / sine]
    flat = sine < 1e-4  # directions that agree, or are opposite: the great circle is not defined
    straight = (1 - share) * one + share * other
    direction = torch.where(flat, straight, weights[0] * one + weights[1] * other)
    mixed: torch.Tensor = direction * ((1 - share) * lengths[0] + share * lengths[1])
    return mixed


def plan_films(
    strategy: str,
    films: Sequence[Mapping[str, Any]],
    count: int,
    seed: int = 0,
    first: int = 0,
    center: torch.Tensor | None = None,
    spread: torch.Tensor | None = None,
    neighbors: int = 5,
    classes: Sequence[Any] | None = None,
) -> list[Plan]:
    """Choose embeddings; what is chosen for a film depends on the seed and its number alone.

    Args:
        strategy: one of :data:`STRATEGIES`.
        films: real films with their tokens as ``source``, from :func:`embedded_films`.
        count: how many films are to be drawn.
        seed: of the choice.
        first: number of the first one.
        center: ``(N, D)`` of the diffusion model's tokens, in whose scale angles and distances are taken.
        spread: likewise.
        neighbors: of ``neighborhood``: how many films around one have a part.
        classes: one a film: ``interpolate`` stays within one, ``neighborhood`` too; None: there are none.

    Returns:
        A plan for each film to be drawn.

    Raises:
        ConfigurationError: if the strategy is unknown, or there are too few films.
    """
    if strategy not in STRATEGIES:
        raise ConfigurationError("unknown strategy", field="strategy", value=strategy, expected=" | ".join(STRATEGIES))
    needed = 2 if strategy in ("interpolate", "neighborhood") else 1
    tokens = torch.stack([film["source"] for film in films]) if films else torch.zeros(0, 1, 1)
    groups = _groups(classes, len(films))
    chosen = [number for number, group in enumerate(groups) if len(group) >= needed]
    if not chosen:
        problem = "too few films to draw from"
        raise ConfigurationError(problem, field="films", value=len(films), expected=f"{needed} (of a class) at least")
    middle = torch.zeros_like(tokens[0]) if center is None else center.to(tokens)
    scale = torch.ones_like(tokens[0]) if spread is None else spread.to(tokens)
    seen = (tokens - middle) / scale
    plans = []
    for number in range(first, first + count):
        random = np.random.default_rng([seed, number])
        film = chosen[_turn(number, len(chosen), seed)]
        others = [other for other in groups[film] if other != film]
        place, parts, facts = _place(strategy, seen, film, others, neighbors, random)
        plans.append(Plan(place * scale + middle, (film, *parts), facts))
    return plans


def _groups(classes: Sequence[Any] | None, count: int) -> list[list[int]]:
    """The films of its class, for every film."""
    if classes is None:
        everything = list(range(count))
        return [everything] * count
    members: dict[Any, list[int]] = {}
    for film, each in enumerate(classes):
        members.setdefault(each, []).append(film)
    return [members[each] for each in classes]


def _turn(number: int, films: int, seed: int) -> int:
    """Every film in turn, in another order each time round."""
    turn, place = divmod(number, films)
    return int(np.random.default_rng([seed, turn, films]).permutation(films)[place])


def _place(
    strategy: str,
    seen: torch.Tensor,
    film: int,
    others: Sequence[int],
    neighbors: int,
    random: np.random.Generator,
) -> tuple[torch.Tensor, tuple[int, ...], dict[str, Any]]:
    """A place among the standardized tokens, the further films that it lies between, and how."""
    if strategy == "interpolate":
        other, share = int(random.choice(others)), round(float(random.uniform(0.2, 0.8)), 4)
        return slerp(seen[film], seen[other], share), (other,), {"share": share}
    if strategy == "neighborhood":
        distances = (seen[list(others)] - seen[film]).flatten(1).norm(dim=1)
        nearest = [others[int(place)] for place in distances.argsort()[:neighbors]]
        parts = random.dirichlet(np.ones(len(nearest) + 1))
        mixed = torch.tensordot(torch.as_tensor(parts, dtype=seen.dtype), seen[[film, *nearest]], dims=1)
        return mixed, tuple(nearest), {"parts": [round(float(part), 4) for part in parts]}
    return seen[film], (), {}
