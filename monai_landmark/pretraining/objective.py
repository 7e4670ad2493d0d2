"""What every pre-training objective is: a network, and what is minimized to train it on films without annotation."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

__all__ = ["Objective", "objective_loss"]


class Objective(nn.Module):
    """Base of the pre-training objectives; MONAI's trainer runs it as its network.

    Args:
        network: what is kept: averaged, saved and transferred. All else that an objective trains is thrown away.

    Attributes:
        views: how many independently augmented views of a film it takes, stacked as channels.
        progress: share of the training that is done, set by a handler before every step.
    """

    network: nn.Module
    views: ClassVar[int] = 1

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.progress = 0.0

    def forward(self, image: torch.Tensor, source: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """What is minimized, for one batch.

        Args:
            image: ``(B, views * C, H, W)``, intensities in [-1, 1].
            source: ``(B,)`` integers, where the films come from; 0 = unknown.

        Returns:
            Scalars: ``loss``, and whatever is worth seeing while it trains.
        """
        raise NotImplementedError

    def step_completed(self) -> None:
        """Called after the optimizer's step, for teachers that follow the network."""

    def describe(self) -> dict[str, Any]:
        """Facts for ``model.json`` that a user of the weights must know.

        Returns:
            What JSON can hold.
        """
        return {}


def objective_loss(output: dict[str, torch.Tensor], target: Any = None) -> torch.Tensor:
    """The loss among an objective's scalars, as MONAI's trainer asks for it.

    Args:
        output: what the objective returned.
        target: unused; there is no annotation.

    Returns:
        The loss.
    """
    return output["loss"]
