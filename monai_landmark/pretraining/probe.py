"""Train and measure a light head on frozen features: features are computed once, the head then trains in seconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor, list_data_collate
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.transforms import Randomizable
from torch.utils.data import DataLoader, Dataset

from monai_landmark.data.geometry import grid_to_mm, mm_to_grid
from monai_landmark.engines.feature_cache import FeatureCache
from monai_landmark.engines.guards import NonFiniteLossGuard
from monai_landmark.engines.randomness import DrawSampler, KeyedSteps
from monai_landmark.files import file_sha256
from monai_landmark.losses import SpatialNLLLoss
from monai_landmark.metrics import radial_errors
from monai_landmark.networks.feature_probe import FeatureHead, FrozenFeatures
from monai_landmark.transforms import DecodeLandmarksd, EncodeHeatmap

__all__ = ["film_features", "probe_errors", "train_head"]

Item = dict[str, Any]
Transform = Callable[[Any], Any]

_LANDMARKS, _AFFINE = "landmarks_px", "affine"  # beside the levels in a cache entry


def film_features(
    features: FrozenFeatures,
    films: Sequence[Item],
    cache: FeatureCache,
    load: Transform,
    augment: Transform | None = None,
    versions: int = 1,
    seed: int = 0,
) -> list[Item]:
    """Frozen features of films, read from the cache or computed, one film after the other.

    What a version looks like depends on the seed, the film and the number of the version alone, so entries are shared
    by all draws of a label budget.

    Args:
        features: the frozen network.
        films: annotated datalist items.
        cache: keeps the features; its ``common`` facts must name the network, the grid and both transforms.
        load: from an item to ``image`` (C, H, W) in [-1, 1] and ``landmarks`` in mm; ready for ``features`` where
            there is no ``augment``.
        augment: random, from a loaded item to ``image`` and ``landmarks`` in pixels of the grid.
        versions: how many versions of each film; 1 where there is no ``augment``.
        seed: of the versions.

    Returns:
        For each film and version ``id``, ``features`` (level -> ``(C, h, w)`` float16), ``landmarks_px`` ``(K, 2)``
        (x, y) on the grid and ``affine`` of the grid.
    """
    found = []
    for film in films:
        views = _Views(features, film, load, augment, seed)
        facts = {"film": views.sha256, "annotation": _digest(film["landmarks"], film.get("spacing"))}
        for number in range(versions):
            view = {**facts, "augmented": None if augment is None else [seed, number]}
            tensors = cache.get(view, partial(views.computed, number))
            levels = {level: tensors[level] for level in features.levels}
            found.append({"id": film["id"], "features": levels, **{k: tensors[k] for k in (_LANDMARKS, _AFFINE)}})
    return found


class _Views:
    """Versions of one film; the film is read when the first is asked for that is not in the cache."""

    def __init__(
        self, features: FrozenFeatures, film: Item, load: Transform, augment: Transform | None, seed: int
    ) -> None:
        self.features, self.film, self.load, self.augment, self.seed = features, film, load, augment, seed
        self.sha256: str = film.get("sha256") or file_sha256(film["image"])

    @cached_property
    def loaded(self) -> Item:
        """The film before augmentation."""
        item: Item = self.load(self.film)
        return item

    def computed(self, number: int) -> dict[str, torch.Tensor]:
        """Tensors of one cache entry."""
        item = self.loaded
        if self.augment is not None:
            if isinstance(self.augment, Randomizable):
                key = np.random.SeedSequence([self.seed, int(self.sha256[:16], 16), number])
                self.augment.set_random_state(seed=int(key.generate_state(1)[0]))
            item = self.augment(deepcopy(item))  # lazy transforms leave marks on the film they are given
        affine, points = item["image"].affine.cpu().double(), torch.as_tensor(item["landmarks"]).double()
        image = item["image"].as_tensor()[None].to(next(self.features.parameters()).device)
        levels = {level: maps[0] for level, maps in self.features(image).items()}
        on_grid = points if self.augment is not None else mm_to_grid(points, affine)
        return {**levels, _LANDMARKS: on_grid, _AFFINE: affine}


def _digest(*facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


class _Examples(Dataset[Item]):
    """Features with target maps."""

    def __init__(self, items: Sequence[Item], encode: EncodeHeatmap) -> None:
        self.items, self.encode = items, encode

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, draw: Any) -> Item:
        item = self.items[draw.item]
        return {"id": item["id"], "features": item["features"], "heatmap": self.encode(item[_LANDMARKS])}


def _prepare(batch: Mapping[str, Any], device: Any = None, non_blocking: bool = False, **_: Any) -> Any:
    features = {level: maps.to(device, non_blocking=non_blocking) for level, maps in batch["features"].items()}
    return features, batch["heatmap"].to(device, non_blocking=non_blocking)


def train_head(
    head: FeatureHead,
    items: Sequence[Item],
    spatial_size: tuple[int, int],
    steps: int = 600,
    batch_size: int = 8,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
    sigma_px: float = 1.5,
    seed: int = 0,
) -> list[float]:
    """Train a head on features: AdamW, cosine schedule, spatial negative log-likelihood, a fixed number of steps.

    Args:
        head: changed in place, trained where it lies, and left in evaluation mode.
        items: from :func:`film_features`.
        spatial_size: (H, W) of the grid.
        steps: number of steps.
        batch_size: versions of films per step.
        learning_rate: at the start.
        weight_decay: of AdamW.
        sigma_px: of the target Gaussian, pixels of the grid.
        seed: of the order.

    Returns:
        The loss of every step.

    Raises:
        NonFiniteLossError: if the loss is not finite.
    """
    losses: list[float] = []
    device = next(head.parameters()).device
    optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    loader = DataLoader(
        _Examples(items, EncodeHeatmap(sigma_px, spatial_size)),
        batch_size,
        sampler=DrawSampler(len(items), steps * batch_size, seed),
        collate_fn=list_data_collate,
    )
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=1,
        train_data_loader=loader,
        network=head,
        optimizer=optimizer,
        loss_function=SpatialNLLLoss(),
        prepare_batch=_prepare,
        train_handlers=[
            KeyedSteps(seed),
            NonFiniteLossGuard(),
            LrScheduleHandler(schedule, print_lr=False, epoch_level=False),
        ],
        decollate=False,
    )
    trainer.add_event_handler(
        "ITERATION_COMPLETED", lambda engine: losses.append(float(engine.state.output["loss"].detach()))
    )
    trainer.run()
    head.eval()
    return losses


def probe_errors(head: FeatureHead, items: Sequence[Item], shape: Mapping[str, Any] | None = None) -> torch.Tensor:
    """Radial errors of a trained head on films.

    Args:
        head: trained by :func:`train_head`.
        items: from :func:`film_features` without augmentation.
        shape: of the training films, see :class:`monai_landmark.transforms.DecodeLandmarksd`.

    Returns:
        ``(N, K)`` errors in mm (pixels of the original film when it has no spacing): NaN = not annotated.
    """
    decode, device = DecodeLandmarksd("pred", shape=shape), next(head.parameters()).device
    head.eval()
    errors = []
    for item in items:
        with torch.no_grad():
            logits = head({level: maps[None].to(device) for level, maps in item["features"].items()})[0]
        blank = MetaTensor(torch.zeros(1, *logits.shape[-2:]), affine=item[_AFFINE])
        points_mm = decode({"pred": logits.cpu(), "image": blank})["pred"]
        errors.append(radial_errors(points_mm, grid_to_mm(item[_LANDMARKS], item[_AFFINE])))
    return torch.stack(errors)
