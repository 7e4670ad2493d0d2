"""What a network sees in a film, as a few tokens: the condition that takes the place of a label or a text.

DiNO-Diffusion (Jimenez-Perez et al., arXiv 2407.11594) tells its diffusion model the global token that DINO gives a
film. Here the network is one that ``embed`` trained on the user's own films by the DINO objective, or any timm network,
DINOv2 among them. Tokens of patches may follow the global one; they say where things are, and so copy more of the film.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from monai.data import Dataset
from monai.transforms import Compose, ScaleIntensityRangePercentilesd
from torch.nn import functional
from torch.utils.data import DataLoader

from monai_landmark.errors import ConfigurationError
from monai_landmark.files import file_sha256, replace_file
from monai_landmark.networks import model_card
from monai_landmark.networks.freezing import FrozenModule
from monai_landmark.networks.initialization import TrainedWeights
from monai_landmark.networks.weights import load_encoder_weights, read_state_dict
from monai_landmark.transforms import FitFilmd, LoadRadiographd

__all__ = ["FilmEmbedder", "embedded_films", "film_embedder", "film_preprocessing"]

_LOGGER = logging.getLogger(__name__)
_BATCH = 16
_KEPT_EVERY = 64  # batches between two writings of the cache
Item = Mapping[str, Any]


def film_preprocessing(spatial_size: Sequence[int], cover: bool = False) -> Compose:
    """From the path of a film to what the networks here see of it, the same as in training.

    Args:
        spatial_size: ``(H, W)`` of the grid.
        cover: see :class:`~monai_landmark.transforms.FitFilm`.

    Returns:
        A transform of items: ``image`` becomes ``(1, H, W)`` in [-1, 1].
    """
    scale = ScaleIntensityRangePercentilesd("image", lower=0.5, upper=99.5, b_min=-1.0, b_max=1.0, clip=True)
    height, width = spatial_size
    return Compose([LoadRadiographd("image"), FitFilmd("image", (height, width), cover=cover), scale])


class FilmEmbedder(FrozenModule):
    """A frozen network that turns films into tokens.

    Args:
        architecture: name of a timm network. One with a class token (a ViT, DINOv2) gives it as the global token;
            others the mean over their deepest map.
        weights: ``imagenet`` (timm's own pre-trained weights), ``random``, or a weights file.
        spatial_size: ``(H, W)`` of the films; that of timm's own training by default.
        patches: n: n x n tokens of places follow the global one; 0: none.
        film_trained: whether the network was trained on films in [-1, 1]; others are given what timm's card of them
            says.
        in_channels: of a network trained here.

    Attributes:
        token_dim: width D of a token.

    Raises:
        ConfigurationError: if timm has no such network.
        WeightsError: if the file does not fit.
    """

    center: torch.Tensor
    spread: torch.Tensor

    def __init__(
        self,
        architecture: str,
        weights: str | PathLike[str] = "imagenet",
        spatial_size: Sequence[int] | None = None,
        patches: int = 0,
        film_trained: bool = False,
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        if not timm.is_model(architecture):
            raise ConfigurationError(
                "neither a folder that `embed` wrote nor a timm network",
                field="embedding",
                value=architecture,
                action="run `embed` first, or name a network that timm.list_models() lists",
            )
        pretrained = str(weights) == "imagenet"
        self.encoder, self.class_token = _encoder(architecture, pretrained, spatial_size, in_channels)
        if not pretrained and str(weights) != "random":
            load_encoder_weights(self.encoder, weights)
        facts: Any = timm.get_pretrained_cfg(architecture)
        self.spatial_size = tuple(spatial_size or facts.input_size[1:])
        self.architecture, self.patches = architecture, patches
        self.film_trained, self.in_channels = film_trained, in_channels
        mean, std = (0.5, 0.5) if film_trained else (sum(facts.mean) / 3, sum(facts.std) / 3)
        # timm's cards are of pictures in [0, 1], films are in [-1, 1]
        self.register_buffer("center", torch.tensor(2 * mean - 1))
        self.register_buffer("spread", torch.tensor(2 * std))
        self.requires_grad_(False).eval()
        self.token_dim = int(
            self.encoder.num_features if self.class_token else self.encoder.feature_info.channels()[-1]
        )

    @property
    def tokens(self) -> int:
        """Number N of tokens."""
        return 1 + self.patches**2

    @torch.no_grad()
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Tokens of films.

        Args:
            image: ``(B, 1, H, W)`` in [-1, 1].

        Returns:
            ``(B, 1 + patches ** 2, D)``, the global token first, then places row by row.
        """
        scaled = (image - self.center) / self.spread
        if self.class_token:
            features = self.encoder.forward_features(scaled)
            first = features[:, :1]
            rows, columns = self.encoder.patch_embed.grid_size
            deepest = features[:, self.encoder.num_prefix_tokens :].transpose(1, 2).unflatten(2, (rows, columns))
        else:
            deepest = self.encoder(scaled)[-1]
            first = deepest.mean(dim=(-2, -1))[:, None]
        if not self.patches:
            return torch.as_tensor(first)
        places = functional.adaptive_avg_pool2d(deepest, self.patches).flatten(2).transpose(1, 2)
        return torch.cat([first, places], dim=1)

    def describe(self) -> dict[str, Any]:
        """Facts from which :func:`film_embedder` builds it once more, and what tells its tokens from others'.

        Returns:
            JSON facts, among them ``key``: a hash of weights and settings.
        """
        facts = {
            "architecture": self.architecture,
            "spatial_size": list(self.spatial_size),
            "patches": self.patches,
            "token_dim": self.token_dim,
            "in_channels": self.in_channels,
            "film_trained": self.film_trained,
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return {**facts, "key": digest.hexdigest()}


def _encoder(
    architecture: str, pretrained: bool, spatial_size: Sequence[int] | None, channels: int
) -> tuple[Any, bool]:
    """A timm network, and whether it has a class token; others are made as their maps alone."""
    given: dict[str, Any] = {"pretrained": pretrained, "in_chans": channels}
    probe = timm.create_model(architecture, num_classes=0)
    if not getattr(probe, "num_prefix_tokens", 0):
        return timm.create_model(architecture, features_only=True, **given), False
    size = {} if spatial_size is None else {"img_size": tuple(spatial_size)}
    return timm.create_model(architecture, num_classes=0, **given, **size), True


def film_embedder(
    model: str | PathLike[str],
    weights: str | PathLike[str] | None = None,
    patches: int | None = None,
    spatial_size: Sequence[int] | None = None,
) -> FilmEmbedder:
    """The network whose tokens are the condition.

    Args:
        model: a folder that ``embed`` wrote (or ``pretrain`` of the landmark bundle, with a timm encoder), or that the
            generation's ``pretrain`` keeps as ``embedding``; or the name of a timm network.
        weights: of a timm network: a file; by default timm's own weights, which are downloaded where they are not here.
        patches: see :class:`FilmEmbedder`; as the folder says, or 0.
        spatial_size: likewise; of a folder that of its training by default.

    Returns:
        The network.

    Raises:
        ConfigurationError: if there is neither such a folder nor such a network.
        WeightsError: if the weights do not fit, or are not those of the card.
    """
    folder = Path(model)
    if not (folder / "model.safetensors").is_file():
        return FilmEmbedder(str(model), weights or "imagenet", spatial_size, patches or 0)
    card = model_card(folder, required="architecture")
    embedder = FilmEmbedder(
        card["architecture"],
        "random",
        spatial_size or card.get("spatial_size"),
        card.get("patches", 0) if patches is None else patches,
        card.get("film_trained", True),
        card.get("in_channels", 1),
    )
    TrainedWeights(embedder.encoder, folder / "model.safetensors")()
    return embedder


def embedded_films(
    films: Sequence[Item],
    embedder: FilmEmbedder,
    cache: str | PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
) -> list[dict[str, Any]]:
    """Films with their tokens, which a diffusion model is told as their ``source``.

    Args:
        films: items with ``image``, the path of a film.
        embedder: gives the tokens.
        cache: a safetensors file that keeps them, each under the SHA-256 of its film's file and of the network; films
            that it holds are not read again. Embeddings are data of patients: keep the file where the films are kept.
        device: where the network runs.
        num_workers: processes that read films.

    Returns:
        The items, in order, with ``source``, ``(N, D)`` float32.
    """
    key = embedder.describe()["key"][:16]
    names = [f"{key}/{file_sha256(film['image'])}" for film in films]
    kept = _read_cache(cache)
    missing = {name: dict(film) for name, film in zip(names, films, strict=True) if name not in kept}
    if missing:
        _LOGGER.info("embedding %d of %d films", len(missing), len(films))
        _embed(missing, embedder.to(device), kept, cache, num_workers)
    return [{**film, "source": kept[name]} for name, film in zip(names, films, strict=True)]


def _embed(
    films: Mapping[str, Item],
    embedder: FilmEmbedder,
    kept: dict[str, torch.Tensor],
    cache: str | PathLike[str] | None,
    num_workers: int,
) -> None:
    """Fill what is kept with the tokens of films, and write it now and then, so that a stop costs little."""
    shown = [{"image": film["image"], **_spacing(film)} for film in films.values()]
    dataset = Dataset(shown, film_preprocessing(embedder.spatial_size))
    names, device = iter(films), embedder.center.device
    loader: Any = DataLoader(dataset, _BATCH, num_workers=num_workers, collate_fn=_stacked)
    for number, batch in enumerate(loader, start=1):
        for tokens in embedder(batch.to(device)).float().cpu():
            kept[next(names)] = tokens.contiguous()
        if number % _KEPT_EVERY == 0:
            _write_cache(cache, kept)
    _write_cache(cache, kept)


def _stacked(items: Sequence[Item]) -> torch.Tensor:
    return torch.stack([item["image"].as_tensor() for item in items])


def _spacing(film: Item) -> dict[str, Any]:
    """What a datalist says of the spacing: it may change a film's proportions."""
    return {name: film[name] for name in ("spacing", "spacing_source") if name in film}


def _read_cache(cache: str | PathLike[str] | None) -> dict[str, torch.Tensor]:
    return {} if cache is None or not Path(cache).is_file() else read_state_dict(cache)


def _write_cache(cache: str | PathLike[str] | None, kept: Mapping[str, torch.Tensor]) -> None:
    if cache is not None:
        with replace_file(cache) as stream:
            stream.write(safetensors.torch.save(dict(kept)))
