"""MoCo v3: a view's query finds the key that a slow copy of the encoder makes of the other view.

Chen, Xie and He, ICCV 2021; f is the encoder with its deepest map pooled, g a projector, h a predictor.

    q = h(g(f(view)))    k = g'(f'(view))    both of length 1
    loss = ctr(q_1, k_2) + ctr(q_2, k_1)
    ctr(q, k) = 2 tau * mean_i [- log exp(q_i k_i / tau) / sum_j exp(q_i k_j / tau)]
    after a step: f' <- m f' + (1 - m) f, g' likewise, m on a half cosine from its start value to 1
"""

from __future__ import annotations

from copy import deepcopy
from os import PathLike
from typing import ClassVar

import torch
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.utils import dist
from lightly.utils.debug import std_of_l2_normalized
from torch.nn import functional

from monai_landmark.pretraining.encoder_objective import (
    EncoderObjective,
    in_full_precision,
    momentum_at,
    pooled_features,
    require_negatives,
)

__all__ = ["MoCoV3Objective"]


class MoCoV3Objective(EncoderObjective):
    """Symmetric InfoNCE against a momentum encoder (algorithm 1 of the paper).

    The keys of the other films of the step are the only negatives, B - 1 of them (from all processes): with 4 films
    the loss starts near 4 tau log 4 and soon has nothing more to tell apart, see :class:`.SimCLRObjective`. lightly's
    NT-Xent is not used: it also counts the other queries as negatives, which MoCo v3 does not.

    Args:
        encoder: name of a timm model that supports ``features_only``.
        in_channels: channels of one view of a film.
        initialization: ``random``; ``imagenet``; or a weights file.
        temperature: tau.
        momentum: m at the start. A teacher lags by some 1 / (1 - m) steps; take less than 0.99 for a few hundred.
        projection: width of queries and keys.
        hidden: width of the hidden layers of the projector g and the predictor h.
        batch_norm: normalize over the batch in g and h, as the paper does with its large batches; off for the reason
            given at :class:`.SimCLRObjective`.

    Raises:
        ConfigurationError: if timm has no such model.
        WeightsError: if the file does not fit the encoder.
    """

    name: ClassVar[str] = "mocov3"
    views: ClassVar[int] = 2

    def __init__(
        self,
        encoder: str = "tf_efficientnet_lite0",
        in_channels: int = 1,
        initialization: str | PathLike[str] = "random",
        temperature: float = 0.2,
        momentum: float = 0.99,
        projection: int = 256,
        hidden: int = 512,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(encoder, in_channels, initialization)
        self.temperature, self.momentum = temperature, momentum
        self.projector = MoCoProjectionHead(self.width, hidden, projection, num_layers=2, batch_norm=batch_norm)
        self.predictor = MoCoProjectionHead(projection, hidden, projection, num_layers=2, batch_norm=batch_norm)
        self.teacher, self.teacher_projector = deepcopy(self.network), deepcopy(self.projector)
        deactivate_requires_grad(self.teacher)
        deactivate_requires_grad(self.teacher_projector)
        self.hyperparameters = {
            "temperature": temperature,
            "momentum": momentum,
            "projection": projection,
            "hidden": hidden,
            "batch_norm": batch_norm,
        }

    def forward(self, image: torch.Tensor, source: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Find the keys of the films of a step.

        Args:
            image: ``(B, 2 * C, H, W)``, two views of each film in [-1, 1].
            source: unused.

        Returns:
            ``loss`` and ``projection_spread``, as :meth:`.SimCLRObjective.forward` has it.

        Raises:
            ConfigurationError: if there is a single film, which has no negatives, or not two views of each.
        """
        require_negatives(image)
        views = self.stacked_views(image)
        projections = self.projector(pooled_features(self.network, views))
        queries = self.predictor(projections)
        with torch.no_grad():
            keys = self.teacher_projector(pooled_features(self.teacher, views))
        loss = in_full_precision(self._symmetric, queries, keys)
        return {"loss": loss, "projection_spread": std_of_l2_normalized(projections.detach().float())}

    def step_completed(self) -> None:
        """Let the teacher follow by one step."""
        momentum = momentum_at(self.progress, self.momentum)
        update_momentum(self.network, self.teacher, momentum)
        update_momentum(self.projector, self.teacher_projector, momentum)

    def _symmetric(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        (q1, q2), (k1, k2) = queries.chunk(2), keys.chunk(2)
        return self._contrast(q1, k2) + self._contrast(q2, k1)

    def _contrast(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """``ctr(q, k)`` of ``(B, projection)`` queries; the keys of every process are candidates."""
        if dist.world_size() > 1:
            keys = torch.cat(dist.gather(keys))
        logits = functional.normalize(queries) @ functional.normalize(keys).T / self.temperature
        own = torch.arange(len(queries), device=queries.device) + dist.rank() * len(queries)
        return 2 * self.temperature * functional.cross_entropy(logits, own)
