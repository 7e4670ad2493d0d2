"""A diffusion model as a folder that can move: weights and card, its embedder, and its autoencoder if it has one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from torch import nn

from monai_landmark.engines import ModelSaver, save_model
from monai_landmark.errors import WeightsError
from monai_landmark.generation.diffusion import (
    EmbeddingDDPMObjective,
    EmbeddingFlowObjective,
    EmbeddingUNet,
    GenerationObjective,
)
from monai_landmark.generation.embedding import FilmEmbedder, film_embedder
from monai_landmark.generation.latents import LatentCodec, stated_card, trained_autoencoder
from monai_landmark.networks.initialization import TrainedWeights

__all__ = ["Generator", "GeneratorSaver", "trained_generator"]

_EMBEDDING, _AUTOENCODER = "embedding", "autoencoder"
_DDPM = ("timesteps", "schedule", "prediction", "beta_end", "min_snr_gamma", "timestep_range", "source_dropout")
_FLOW = ("timesteps", "timestep_sampling", "prediction", "source_dropout")


class GeneratorSaver(ModelSaver):
    """Handler that writes the finished model with all that drawing films from it needs.

    Args:
        network: the averaged U-Net.
        folder: see :func:`monai_landmark.engines.save_model`; ``embedding`` and ``autoencoder`` below it likewise.
        card: likewise, with ``spatial_size`` and what the objective describes.
        embedder: whose tokens the network was told.
        codec: of a diffusion of latents.
        inputs: see :class:`~monai_landmark.engines.ModelSaver`.
    """

    def __init__(
        self,
        network: nn.Module | Callable[[], nn.Module],
        folder: str | PathLike[str],
        card: Mapping[str, Any],
        embedder: FilmEmbedder,
        codec: LatentCodec | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(network, folder, {**card, "embedding": embedder.describe()["key"]}, inputs=inputs)
        self.embedder, self.codec, self._kept = embedder, codec, False

    def __call__(self, engine: Engine) -> None:
        """Write the model; what is frozen is written once.

        Args:
            engine: the trainer.
        """
        if not self._kept:
            save_model(self.embedder.encoder, self.folder / _EMBEDDING, self.embedder.describe())
            if self.codec is not None:
                card = {"autoencoder": self.codec.autoencoder.settings}
                save_model(self.codec.autoencoder, self.folder / _AUTOENCODER, card)
            self._kept = True
        super().__call__(engine)


@dataclass(frozen=True)
class Generator:
    """A trained diffusion model.

    Attributes:
        objective: holds the network, knows the codec and how to sample; in evaluation mode.
        embedder: makes the tokens that it is told.
        card: what ``model.json`` says.
    """

    objective: GenerationObjective
    embedder: FilmEmbedder
    card: dict[str, Any]

    @property
    def spatial_size(self) -> tuple[int, int]:
        """``(H, W)`` of its films."""
        height, width = self.card["spatial_size"]
        return int(height), int(width)

    @property
    def cover(self) -> bool:
        """Whether films fill the grid, or are seen whole; see :class:`~monai_landmark.transforms.FitFilm`."""
        return bool(self.card.get("cover", False))

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.objective.network.center.device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """``(C, h, w)`` of what is noised."""
        codec = self.objective.codec
        if codec is None:
            return (self.objective.network.settings["in_channels"], *self.spatial_size)
        height, width = (side // codec.autoencoder.settings["downsampling"] for side in self.spatial_size)
        return codec.channels, height, width

    def to(self, device: torch.device | str) -> Generator:
        """Move it.

        Args:
            device: where it shall run.

        Returns:
            Itself.
        """
        self.objective.to(device)
        self.embedder.to(device)
        return self


def trained_generator(folder: str | PathLike[str], device: torch.device | str = "cpu") -> Generator:
    """The diffusion model that the generation's ``pretrain`` wrote.

    Args:
        folder: with ``model.safetensors``, ``model.json`` and ``embedding``; ``autoencoder`` where it has one.
        device: where it shall run.

    Returns:
        The model.

    Raises:
        WeightsError: if a file is absent, damaged, or does not belong to the others.
    """
    folder = Path(folder)
    card = stated_card(folder, "network")
    codec = None
    if "latents" in card:
        codec = LatentCodec(trained_autoencoder(folder / _AUTOENCODER), **card["latents"])
    network = EmbeddingUNet(**card["network"])
    kind, names = (EmbeddingFlowObjective, _FLOW) if card["objective"] == "flow" else (EmbeddingDDPMObjective, _DDPM)
    objective: GenerationObjective = kind(network, codec, **{name: card[name] for name in names})
    TrainedWeights(network, folder / "model.safetensors")()
    embedder = film_embedder(folder / _EMBEDDING)
    if embedder.describe()["key"] != card["embedding"]:
        raise WeightsError(
            "not the embedding that the model was trained with",
            file=folder / _EMBEDDING,
            action="copy the whole folder again",
        )
    return Generator(objective.requires_grad_(False).eval(), embedder, card).to(device)
