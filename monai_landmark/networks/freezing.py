"""A network whose encoder stays as it was pre-trained while its decoder learns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from torch import nn

__all__ = ["FreezableEncoder"]

_Self = TypeVar("_Self", bound="FreezableEncoder")


class FreezableEncoder(nn.Module):
    """What landmark networks with an encoder and a decoder share."""

    encoder_frozen = False

    def encoder_parts(self) -> Iterator[nn.Module]:
        """Modules from the film down to the deepest features."""
        raise NotImplementedError

    def freeze_encoder(self) -> None:
        """Take the encoder out of the training: no gradient, and its running statistics stay."""
        self.encoder_frozen = True
        for part in self.encoder_parts():
            part.requires_grad_(False)
        self.train(self.training)

    def train(self: _Self, mode: bool = True) -> _Self:
        """Set the mode; a frozen encoder stays in evaluation mode.

        Args:
            mode: training or not.

        Returns:
            Itself.
        """
        super().train(mode)
        if self.encoder_frozen:
            for part in self.encoder_parts():
                part.eval()
        return self
