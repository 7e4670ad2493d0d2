"""Several independent random views of one film: what contrastive and distillation objectives compare."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable

from monai_landmark.errors import ConfigurationError

__all__ = ["RandViewsD", "RandViewsDict", "RandViewsd"]


class RandViewsd(Randomizable, MapTransform):
    """Apply one random transform several times to copies of an item and stack the images along their channels.

    The first view is what the transform alone makes of the item under the same seed; the others draw on from there.
    So every objective sees films under the same augmentation, and a single view is the plain transform.

    Args:
        keys: keys of the images.
        transform: takes and returns an item; a :class:`monai.transforms.Compose` of random transforms as a rule. No
            lazy operation may be pending when it returns.
        views: how many views.
        allow_missing_keys: see :class:`monai.transforms.MapTransform`.

    Raises:
        ConfigurationError: if there is no view, or several of a transform that is not random: they would be the same.
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: Callable[[Mapping[Hashable, Any]], Mapping[Hashable, Any]],
        views: int = 2,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if views < 1:
            raise ConfigurationError("no view to make", field="views", value=views, expected="1 or more")
        if views > 1 and not isinstance(transform, Randomizable):
            raise ConfigurationError(
                "views of a transform without randomness are all the same",
                field="transform",
                value=type(transform).__name__,
                expected="a random transform, or a Compose of some",
            )
        self.transform, self.views = transform, views

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandViewsd:
        """Seed the transform; everything that the views draw follows from it.

        Args:
            seed: as for :class:`monai.transforms.Randomizable`.
            state: likewise.

        Returns:
            The transform itself.
        """
        super().set_random_state(seed, state)
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(seed, state)
        return self

    def randomize(self, data: Any) -> None:
        """Draw nothing: the transform draws for every view.

        Args:
            data: unused.
        """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Make the views of one item.

        Args:
            data: an item with ``(C, H, W)`` images under the keys; left as it is.

        Returns:
            The first view's item, in which the images are ``(views * C, H, W)``; what stands under other keys, and
            the affine of the images, are those of the first view.
        """
        items = [dict(self.transform(deepcopy(dict(data)))) for _ in range(self.views)]
        if self.views > 1:
            for key in self.key_iterator(items[0]):
                items[0][key] = torch.cat([item[key] for item in items])
        return items[0]


RandViewsD = RandViewsDict = RandViewsd
