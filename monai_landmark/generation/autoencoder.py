"""Training of the autoencoder whose latents are diffused (Rombach et al., CVPR 2022, section 3.1).

loss = |x - x'| + w_p perceptual(x, x') + w_k KL(q(z | x), N(0, I)) + w_a adversarial(D(x')),    x' = decoded z
D learns at the same step to tell films from what is decoded.

One optimizer serves both: the autoencoder's terms see D with its weights detached, and D sees x' detached, so one
backward pass gives each the gradient of its own loss alone, and Adam treats every weight by itself. That is training by
two optimizers that step at the same time; MONAI's ``AdversarialTrainer`` lets them take turns, and knows no KL term.
"""

from __future__ import annotations

from os import PathLike
from typing import Any

import torch
from monai.losses import PatchAdversarialLoss, PerceptualLoss
from monai.networks.nets import AutoencoderKL, PatchDiscriminator
from torch import nn
from torch.nn import functional

from monai_landmark.errors import ConfigurationError
from monai_landmark.generation.embedding import FilmEmbedder, film_embedder
from monai_landmark.pretraining.objective import Objective

__all__ = ["AutoencoderObjective", "FilmPerceptualLoss", "perceptual_loss"]

_RESNET = "resnet50"


class FilmPerceptualLoss(nn.Module):
    """How differently a network that was trained on films sees two of them.

    At every level the features are scaled to unit length at each place, and the mean squared difference is taken, as in
    LPIPS (Zhang et al., CVPR 2018) without its learned weights.

    Args:
        embedder: with maps at several levels: any timm network without a class token.

    Raises:
        ConfigurationError: if the network has a class token.
    """

    def __init__(self, embedder: FilmEmbedder) -> None:
        super().__init__()
        if embedder.class_token:
            raise ConfigurationError(
                "a network with a class token has no maps at several levels",
                field="perceptual",
                value=embedder.architecture,
                action="name a folder that `embed` wrote with a convolutional network, or null",
            )
        self.embedder = embedder

    def forward(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compare films.

        Args:
            image: ``(B, 1, H, W)`` in [-1, 1].
            target: of the same shape.

        Returns:
            The mean over levels, films and places.
        """
        scaled = [(film - self.embedder.center) / self.embedder.spread for film in (image, target)]
        pairs = list(zip(*(self.embedder.encoder(film) for film in scaled), strict=True))
        levels = [(functional.normalize(a) - functional.normalize(b)).square().sum(1).mean() for a, b in pairs]
        return torch.stack(levels).mean()


def perceptual_loss(model: str | PathLike[str] | None, weights: str | PathLike[str] | None = None) -> nn.Module | None:
    """The perceptual term, where there are weights for it.

    Args:
        model: a folder that ``embed`` wrote; ``resnet50``, MONAI's loss on torchvision's network; None: no such term.
        weights: of ``resnet50``: a local file, for nothing is downloaded.

    Returns:
        A module that compares ``(B, 1, H, W)`` films, frozen; or None.

    Raises:
        ConfigurationError: if there are no weights.
    """
    if model is None:
        return None
    if str(model) != _RESNET:
        return FilmPerceptualLoss(film_embedder(model)).requires_grad_(False).eval()
    if weights is None:
        raise ConfigurationError(
            "MONAI's perceptual loss needs the weights of its network",
            field="perceptual_weights",
            expected="a file of torchvision's resnet50",
            action="name it, or the folder that `embed` wrote as `perceptual`",
        )
    loss = PerceptualLoss(2, network_type=_RESNET, pretrained=True, pretrained_path=str(weights))
    frozen: nn.Module = loss.requires_grad_(False).eval()
    return frozen


class AutoencoderObjective(Objective):
    """What is minimized to train an autoencoder of films; the discriminator is thrown away.

    Args:
        network: from :func:`~monai_landmark.generation.latents.film_autoencoder`.
        perceptual: from :func:`perceptual_loss`; None: without.
        perceptual_weight: w_p.
        kl_weight: w_k, of the mean over the numbers of a latent.
        adversarial_weight: w_a; 0: without a discriminator.
        adversarial_start: share of the training before the discriminator comes in: first there must be films.
        discriminator_width: channels of its first layer.
        discriminator_layers: its steps down; a patch that it judges has some 10, 22, 46 or 94 pixels for 1 to 4.
    """

    network: AutoencoderKL

    def __init__(
        self,
        network: AutoencoderKL,
        perceptual: nn.Module | None = None,
        perceptual_weight: float = 0.3,
        kl_weight: float = 1e-3,
        adversarial_weight: float = 0.02,
        adversarial_start: float = 0.3,
        discriminator_width: int = 32,
        discriminator_layers: int = 2,
    ) -> None:
        super().__init__(network)
        self.perceptual = perceptual
        self.weights = {"perceptual": perceptual_weight, "kl": kl_weight, "adversarial": adversarial_weight}
        self.adversarial_start = adversarial_start
        self.discriminator: nn.Module | None = None
        if adversarial_weight:
            self.discriminator = PatchDiscriminator(
                2, discriminator_width, 1, num_layers_d=discriminator_layers, norm=("INSTANCE", {"affine": True})
            )
        self.judge = PatchAdversarialLoss(criterion="least_squares")

    def forward(self, image: torch.Tensor, source: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Loss of a batch.

        Args:
            image: ``(B, 1, H, W)`` in [-1, 1].
            source: not used.

        Returns:
            ``loss``, and its terms ``reconstruction``, ``kl``, ``perceptual`` and, once it takes part, ``adversarial``
            and ``discriminator``.
        """
        mean, sigma = self.network.encode(image)
        decoded = self.network.decode(self.network.sampling(mean, sigma))
        terms = {"reconstruction": (decoded - image).abs().mean(), "kl": _divergence(mean.float(), sigma.float())}
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(decoded.float(), image.float())
        if self.discriminator is not None and self.progress >= self.adversarial_start:
            terms["adversarial"] = self.judge(self._seen_from_outside(decoded), True, False)
            told_apart = [(self.discriminator(decoded.detach())[-1], False), (self.discriminator(image)[-1], True)]
            terms["discriminator"] = sum(self.judge(answer, real, True) for answer, real in told_apart) / 2
        loss = sum(self.weights.get(name, 1.0) * term for name, term in terms.items())
        return {"loss": torch.as_tensor(loss), **terms}

    def _seen_from_outside(self, decoded: torch.Tensor) -> torch.Tensor:
        """The discriminator's answer, with a gradient for what it sees and none for itself."""
        assert self.discriminator is not None  # noqa: S101 - the caller has looked
        weights = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        answer: torch.Tensor = torch.func.functional_call(self.discriminator, weights, (decoded,))[-1]
        return answer

    def describe(self) -> dict[str, Any]:
        """Facts for ``model.json``.

        Returns:
            The network's settings and the weights of the terms.
        """
        weights = {f"{name}_weight": weight for name, weight in self.weights.items()}
        if self.perceptual is None:
            weights["perceptual_weight"] = 0.0
        start = {"adversarial_start": self.adversarial_start}
        return {"objective": "autoencoder", "autoencoder": self.network.settings, **weights, **start}


def _divergence(mean: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """KL of N(mean, sigma^2) from N(0, 1), the mean over all numbers of the latents."""
    variance = sigma.square()
    return 0.5 * (mean.square() + variance - variance.clamp_min(1e-12).log() - 1).mean()
