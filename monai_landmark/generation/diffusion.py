"""Diffusion of films, or of their latents, that is told the embedding of a film by cross-attention.

Classifier-free guidance (Ho and Salimans, 2022) needs a model that now and then is told nothing: a condition of NaN
stands for a withheld one, and the network puts tokens of its own in its place, which it learns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from monai_landmark.errors import ConfigurationError
from monai_landmark.generation.latents import LatentCodec
from monai_landmark.networks import DiffusionUNet
from monai_landmark.networks.diffusion_unet import SIZES
from monai_landmark.pretraining.ddpm import DDPMObjective
from monai_landmark.pretraining.diffusion import DiffusionObjective
from monai_landmark.pretraining.flow import FlowObjective
from monai_landmark.processes import drawn_for

__all__ = ["EmbeddingDDPMObjective", "EmbeddingFlowObjective", "EmbeddingUNet", "generation_objective"]

_HEAD = 32  # largest width of a head of attention
_LEAST_NOISE = 0.05  # share of noise below which a film's velocity is not overdrawn any more, as in arXiv 2511.13720
_ATTENDING = 2  # deepest levels of the U-Net that look at the tokens


class EmbeddingUNet(DiffusionUNet):
    """The diffusion U-Net with cross-attention to the tokens of an embedding.

    Tokens are standardized, projected to ``width``, and told apart by a learned vector each.

    Args:
        tokens: number N of tokens.
        token_dim: width D of a token.
        width: of the tokens that the attention sees.
        in_channels: channels of the film or latent.
        size: see :class:`~monai_landmark.networks.DiffusionUNet`.
        patch_size: likewise; 1 for latents.
        gradient_checkpointing: likewise.
        **options: likewise.

    Attributes:
        center: mean of each token over the training films, ``(N, D)``; see :meth:`standardize`.
        spread: its standard deviation.
    """

    center: torch.Tensor
    spread: torch.Tensor

    def __init__(
        self,
        tokens: int,
        token_dim: int,
        width: int = 128,
        in_channels: int = 1,
        size: str = "tiny",
        patch_size: int = 2,
        gradient_checkpointing: bool = False,
        **options: Any,
    ) -> None:
        given = dict(options)
        channels = options.get("channels") or SIZES.get(size, SIZES["tiny"])["channels"]
        attending = [level >= len(channels) - _ATTENDING for level in range(len(channels))]
        heads = [math.gcd(each, _HEAD) for each in channels]
        options = {"attention_levels": attending, "num_head_channels": heads, **options}
        options |= {"with_conditioning": True, "cross_attention_dim": width}
        super().__init__(in_channels, in_channels, size, patch_size, gradient_checkpointing, **options)
        self.project = nn.Linear(token_dim, width)
        self.place = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.withheld = nn.Parameter(torch.zeros(tokens, width))
        self.register_buffer("center", torch.zeros(tokens, token_dim))
        self.register_buffer("spread", torch.ones(tokens, token_dim))
        self.settings: dict[str, Any] = {
            "tokens": tokens,
            "token_dim": token_dim,
            "width": width,
            "in_channels": in_channels,
            "size": size,
            "patch_size": patch_size,
            **given,
        }

    def standardize(self, tokens: torch.Tensor) -> None:
        """Learn center and spread of the tokens; an axis that never differs is left as it is.

        Args:
            tokens: ``(films, N, D)`` of the films to train on.
        """
        self.center.copy_(tokens.mean(dim=0))
        spread = tokens.std(dim=0, correction=0)
        self.spread.copy_(torch.where(spread > 1e-6, spread, 1.0))

    def forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor | None = None,
        class_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Prediction for noisy films.

        Args:
            x: ``(B, C, H, W)``; H and W must be multiples of ``divisor``.
            timesteps: ``(B,)``, 0 for a clean film.
            context: ``(B, N, D)`` tokens, NaN where a film's are withheld; None: all are.
            class_labels: not used.

        Returns:
            ``(B, C, H, W)``.
        """
        told = self.withheld.expand(len(x), -1, -1)
        if context is not None:
            known = context.isfinite().all(dim=-1, keepdim=True)
            seen = (context.nan_to_num() - self.center) / self.spread
            told = torch.where(known, self.project(seen) + self.place, told)
        return super().forward(x, timesteps, told)


class _EmbeddingObjective(DiffusionObjective):
    """What is the same for every objective that is told an embedding; stands before the objective itself.

    Args:
        network: the U-Net.
        codec: between films and the latents that are noised; None: the films themselves are.
        source_dropout: share of the films whose embedding is withheld.
        **options: of the objective.
    """

    network: EmbeddingUNet
    codec: LatentCodec | None

    def __init__(
        self, network: EmbeddingUNet, codec: LatentCodec | None = None, source_dropout: float = 0.1, **options: Any
    ) -> None:
        super().__init__(network, source_dropout=source_dropout, **options)
        self.codec = codec

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """What is noised.

        Args:
            image: ``(B, 1, H, W)`` in [-1, 1].

        Returns:
            Latents ``(B, C, h, w)``, or the films.
        """
        return image if self.codec is None else self.codec.encode(image)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Films of latents.

        Args:
            latent: ``(B, C, h, w)``.

        Returns:
            ``(B, 1, H, W)``.
        """
        return latent if self.codec is None else self.codec.decode(latent)

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, source: torch.Tensor | None = None) -> torch.Tensor:
        """Ask the network.

        Args:
            noisy: ``(B, C, h, w)``.
            timesteps: ``(B,)``.
            source: ``(B, N, D)`` tokens; None: all are withheld.

        Returns:
            Its answer, float32, of the same shape.
        """
        answer: torch.Tensor = self.network(noisy, timesteps, source)
        return answer.float()

    def forward(self, image: torch.Tensor, source: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Mean loss of a batch at timesteps and noise drawn for it.

        Args:
            image: ``(B, 1, H, W)``.
            source: ``(B, N, D)`` tokens of the films.

        Returns:
            ``loss``.
        """
        told = self.withhold(self.checked(source, image))
        latent = self.encode(image)
        timesteps, noise = drawn_for(latent, self.draw_timesteps), drawn_for(latent, torch.randn_like)
        return {"loss": self.film_loss(latent, timesteps, noise, told).mean()}

    def checked(self, source: torch.Tensor | None, image: torch.Tensor) -> torch.Tensor:
        """The tokens of a batch, refused where they cannot be right.

        Args:
            source: ``(B, N, D)``.
            image: the films.

        Returns:
            ``source``.

        Raises:
            ConfigurationError: if there are none, or they have another shape.
        """
        shape = (len(image), *self.network.center.shape)
        if source is None or source.shape != shape:
            raise ConfigurationError(
                "the network needs the embedding of every film",
                field="source",
                value=None if source is None else tuple(source.shape),
                expected=f"tokens of the shape {shape}",
                action="take the films from embedded_films, with the embedder of the network",
            )
        return source

    def withhold(self, source: torch.Tensor) -> torch.Tensor:
        """Withhold the embedding of some films.

        Args:
            source: ``(B, N, D)``.

        Returns:
            The same, NaN where it is withheld.
        """
        drawn = drawn_for(source, lambda films: torch.rand(len(films), 1, 1, device=films.device))
        return source.masked_fill(drawn < self.source_dropout, torch.nan)

    def sampling_scheduler(self, steps: int) -> Any:
        """As the objective's own; latents have no bounds to clip to.

        Args:
            steps: how many it takes.

        Returns:
            The scheduler.
        """
        scheduler = super().sampling_scheduler(steps)
        if self.codec is not None and hasattr(scheduler, "clip_sample"):
            scheduler.clip_sample = False
        return scheduler

    def describe(self) -> dict[str, Any]:
        """Facts for ``model.json``, from which :func:`generation_objective` builds it once more.

        Returns:
            The objective's own, the network's, and those of the latents.
        """
        codec = {} if self.codec is None else self.codec.describe()
        facts = {"network": self.network.settings, "source_dropout": self.source_dropout}
        return {**super().describe(), **facts, **codec}


class EmbeddingDDPMObjective(_EmbeddingObjective, DDPMObjective):
    """:class:`~monai_landmark.pretraining.ddpm.DDPMObjective` that is told an embedding."""


class EmbeddingFlowObjective(_EmbeddingObjective, FlowObjective):
    """:class:`~monai_landmark.pretraining.flow.FlowObjective` that is told an embedding.

    The network may answer the velocity, or the film itself, of which the velocity is taken; the loss is one of
    velocities in both cases. A film has structure and noise has none, so a network that looks at patches, or has had
    few steps, learns films sooner than velocities (Li and He, "Back to Basics: Let Denoising Generative Models
    Denoise", arXiv 2511.13720).

    Args:
        network: the U-Net.
        codec: see :class:`_EmbeddingObjective`.
        source_dropout: likewise.
        prediction: what the network answers: ``velocity`` or ``sample``.
        **options: of the flow.

    Raises:
        ConfigurationError: if the prediction is neither.
    """

    def __init__(
        self,
        network: EmbeddingUNet,
        codec: LatentCodec | None = None,
        source_dropout: float = 0.1,
        prediction: str = "velocity",
        **options: Any,
    ) -> None:
        if prediction not in ("velocity", "sample"):
            expected = "velocity | sample"
            raise ConfigurationError("unknown prediction", field="prediction", value=prediction, expected=expected)
        super().__init__(network, codec, source_dropout, **options)
        self.prediction = prediction

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, source: torch.Tensor | None = None) -> torch.Tensor:
        """The velocity: the network's answer, or (x - x_s) / s for a film x.

        Args:
            noisy: ``(B, C, h, w)`` x_s.
            timesteps: ``(B,)`` s T.
            source: ``(B, N, D)`` tokens; None: all are withheld.

        Returns:
            Of the shape of ``noisy``, float32.
        """
        answer = super().predict(noisy, timesteps, source)
        if self.prediction == "velocity":
            return answer
        share = (timesteps.float() / self.timesteps).clamp_min(_LEAST_NOISE).view(-1, 1, 1, 1)
        return (answer - noisy) / share

    def describe(self) -> dict[str, Any]:
        """Facts for ``model.json``.

        Returns:
            The flow's own, and what the network answers.
        """
        return {**super().describe(), "prediction": self.prediction}


GenerationObjective = EmbeddingDDPMObjective | EmbeddingFlowObjective
_OBJECTIVES: dict[str, Any] = {"ddpm": EmbeddingDDPMObjective, "flow": EmbeddingFlowObjective}


def generation_objective(
    name: str,
    films: Sequence[Any],
    size: str = "tiny",
    codec: LatentCodec | None = None,
    gradient_checkpointing: bool = False,
    network: dict[str, Any] | None = None,
    **options: Any,
) -> GenerationObjective:
    """Build the diffusion model for films with their embeddings.

    Args:
        name: ``ddpm`` (with ``prediction`` ``epsilon``, ``v_prediction`` or ``sample``), or ``flow``
            (``velocity`` or ``sample``).
        films: items with ``source``, tokens ``(N, D)``, from :func:`embedded_films`; they tell the shape,
            center and spread of the tokens.
        size: of the U-Net: ``tiny``, ``small`` or ``base``.
        codec: see :class:`EmbeddingUNet`; None: the diffusion is one of pixels.
        gradient_checkpointing: likewise.
        network: further arguments of :class:`EmbeddingUNet`; ``patch_size`` is 2 for films, 1 for
            latents by default.
        **options: of the objective; None leaves its default.

    Returns:
        The objective.

    Raises:
        ConfigurationError: if a name is unknown.
    """
    if name not in _OBJECTIVES:
        raise ConfigurationError("unknown objective", field="objective", value=name, expected=" | ".join(_OBJECTIVES))
    if not films:
        raise ConfigurationError("no film to train on", field="films", value=0, expected="at least one")
    tokens = torch.stack([film["source"] for film in films])
    kind = {"patch_size": 2} if codec is None else {"patch_size": 1, "in_channels": codec.channels}
    settings = {"size": size, "gradient_checkpointing": gradient_checkpointing, **kind, **(network or {})}
    unet = EmbeddingUNet(*tokens.shape[1:], **settings)
    unet.standardize(tokens)
    given = {option: value for option, value in options.items() if value is not None}
    objective: GenerationObjective = _OBJECTIVES[name](unet, codec, **given)
    return objective
