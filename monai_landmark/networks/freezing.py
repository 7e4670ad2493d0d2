"""Networks that stay as they were trained, as a whole or in their encoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from torch import nn

__all__ = ["FreezableEncoder", "FrozenModule"]

_Self = TypeVar("_Self", bound=nn.Module)
_Freezable = TypeVar("_Freezable", bound="FreezableEncoder")


class FrozenModule(nn.Module):
    """A module that stays in evaluation mode, whatever it is a part of."""

    def train(self: _Self, mode: bool = True) -> _Self:
        """Stay in evaluation mode.

        Args:
            mode: whatever is asked for.

        Returns:
            Itself.
        """
        nn.Module.train(self, False)
        return self


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

    def train(self: _Freezable, mode: bool = True) -> _Freezable:
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
