"""DINO: a student learns what a slow copy of itself says about the other view (Caron et al., ICCV 2021).

p_s = softmax(s(view) / tau_s)    p_t = softmax((t(view) - c) / tau_t)
loss = mean over the pairs of different views of - sum_d p_t log p_s
c <- 0.9 c + 0.1 mean(t)          centering: no output may win for every film
tau_t < tau_s                     sharpening: nor may all outputs be alike
after a step: t <- m t + (1 - m) s, m on a half cosine from its start value to 1

s is the encoder with its deepest map pooled and a head that is thrown away, t a slow copy of both.
"""

from __future__ import annotations

from copy import deepcopy
from os import PathLike
from typing import ClassVar

import torch
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum

from monai_landmark.pretraining.encoder_objective import (
    EncoderObjective,
    in_full_precision,
    momentum_at,
    pooled_features,
)

__all__ = ["DINOObjective"]


class DINOObjective(EncoderObjective):
    """Self-distillation without labels and without negatives (algorithm 1 of the paper).

    Both views are whole films; the paper's many small crops are left out, as they would give this objective more views
    of a film than the others have. No film is a negative, so a small batch costs little more than a noisy center.

    Args:
        encoder: name of a timm model that supports ``features_only``.
        in_channels: channels of one view of a film.
        initialization: ``random``; ``imagenet``; or a weights file.
        teacher_temperature: tau_t.
        student_temperature: tau_s.
        center_momentum: how slowly the center follows.
        momentum: m at the start. A teacher lags by some 1 / (1 - m) steps; take less than 0.996 for a few hundred.
        projection: number of outputs d; the paper's 65536 are for a million pictures.
        hidden: width of the hidden layers of the head.
        bottleneck: width of its normalized last layer but one.
        batch_norm: normalize over the batch in the head. With few films per step it is needed: without it the answers
            soon were the same for all films, until the center drove them apart again, and so on.

    Raises:
        ConfigurationError: if timm has no such model.
        WeightsError: if the file does not fit the encoder.
    """

    name: ClassVar[str] = "dino"
    views: ClassVar[int] = 2

    def __init__(
        self,
        encoder: str = "tf_efficientnet_lite0",
        in_channels: int = 1,
        initialization: str | PathLike[str] = "random",
        teacher_temperature: float = 0.04,
        student_temperature: float = 0.1,
        center_momentum: float = 0.9,
        momentum: float = 0.996,
        projection: int = 1024,
        hidden: int = 512,
        bottleneck: int = 256,
        batch_norm: bool = True,
    ) -> None:
        super().__init__(encoder, in_channels, initialization)
        self.momentum, self.center_momentum = momentum, center_momentum
        # two heads and a copied state: a module under weight_norm cannot be copied as a whole
        self.projector, self.teacher_projector = (
            DINOProjectionHead(self.width, hidden, bottleneck, projection, batch_norm=batch_norm) for _ in range(2)
        )
        self.teacher = deepcopy(self.network)
        self.teacher_projector.load_state_dict(self.projector.state_dict())
        deactivate_requires_grad(self.teacher)
        deactivate_requires_grad(self.teacher_projector)
        self.distill = DINOLoss(
            projection,
            teacher_temp=teacher_temperature,
            student_temp=student_temperature,
            center_momentum=center_momentum,
        )
        self.hyperparameters = {
            "teacher_temperature": teacher_temperature,
            "student_temperature": student_temperature,
            "center_momentum": center_momentum,
            "momentum": momentum,
            "projection": projection,
            "hidden": hidden,
            "bottleneck": bottleneck,
            "batch_norm": batch_norm,
        }

    def forward(self, image: torch.Tensor, source: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Distill the films of a step.

        Args:
            image: ``(B, 2 * C, H, W)``, two views of each film in [-1, 1].
            source: unused.

        Returns:
            ``loss``; ``teacher_entropy``, the mean entropy of the teacher's answers in nats; and ``mean_entropy``, that
            of their mean over the step. log(projection) and log(projection): the outputs are all alike. 0 and 0: one
            output wins for every film. Healthy is a low first and a higher second one.

        Raises:
            ConfigurationError: if there are not two views of each film.
        """
        views = self.stacked_views(image)
        student = self.projector(pooled_features(self.network, views))
        with torch.no_grad():
            teacher = self.teacher_projector(pooled_features(self.teacher, views))
            answers = ((teacher.float() - self.distill.center[0]) / self.distill.teacher_temp).softmax(dim=-1)
        signs = {"teacher_entropy": _entropy(answers).mean(), "mean_entropy": _entropy(answers.mean(dim=0))}
        return {"loss": in_full_precision(self._distilled, teacher, student), **signs}

    def step_completed(self) -> None:
        """Let the teacher follow by one step."""
        momentum = momentum_at(self.progress, self.momentum)
        update_momentum(self.network, self.teacher, momentum)
        update_momentum(self.projector, self.teacher_projector, momentum)

    def _distilled(self, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        # lightly moves the center whenever the loss is asked for; a validation may not
        self.distill.center_momentum = self.center_momentum if self.training else 1.0
        loss: torch.Tensor = self.distill(list(teacher.chunk(2)), list(student.chunk(2)))
        return loss


def _entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """Entropy in nats over the last axis."""
    terms: torch.Tensor = torch.special.entr(probabilities)
    return terms.sum(dim=-1)
