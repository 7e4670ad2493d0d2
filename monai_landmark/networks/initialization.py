"""One function from a name and an initialization to a landmark network."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import timm
from ignite.engine import Engine, Events
from torch import nn

from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.networks.encoder_unet import EncoderLandmarkUNet
from monai_landmark.networks.landmark_unet import SIZES, LandmarkUNet
from monai_landmark.networks.weights import read_state_dict

__all__ = ["TrainedWeights", "landmark_network", "model_card", "trained", "trained_schema"]

_DIFFUSION = "diffusion-"


def landmark_network(
    landmarks: int, architecture: str, initialization: str | PathLike[str] = "random", **options: Any
) -> EncoderLandmarkUNet | LandmarkUNet:
    """Build a landmark network and fill it.

    Args:
        landmarks: number of landmarks K.
        architecture: ``diffusion-tiny``, ``diffusion-small``, ``diffusion-base``, or the name of a timm encoder.
        initialization: ``random``; ``imagenet`` (timm's own weights, for an encoder); or a weights file: one that
            pre-training wrote for a diffusion network, the encoder's own weights for a timm encoder.
        **options: passed on to the network.

    Returns:
        The network, with its ``transfer_report`` where a file was read.

    Raises:
        ConfigurationError: if the architecture is unknown, or does not go together with the initialization.
        WeightsError: if the file does not fit.
    """
    random, imagenet = str(initialization) == "random", str(initialization) == "imagenet"
    weights_file = None if random or imagenet else initialization
    if not architecture.startswith(_DIFFUSION) and timm.is_model(architecture):
        return EncoderLandmarkUNet(landmarks, architecture, pretrained=imagenet, weights_file=weights_file, **options)
    size = architecture.removeprefix(_DIFFUSION)
    if not architecture.startswith(_DIFFUSION) or size not in SIZES:
        expected = " | ".join(f"{_DIFFUSION}{name}" for name in SIZES) + " | a timm encoder"
        raise ConfigurationError("unknown architecture", field="architecture", value=architecture, expected=expected)
    if imagenet:
        raise ConfigurationError(
            "there are no ImageNet weights for the diffusion U-Net",
            field="initialization",
            value=initialization,
            expected="random or a file that pre-training wrote",
            action="name a timm encoder as the architecture to start from ImageNet",
        )
    return LandmarkUNet(landmarks, size=size, weights_file=weights_file, **options)


def model_card(model_dir: str | PathLike[str], required: str | None = None) -> dict[str, Any]:
    """What is known about the weights in a folder: ``model.json``.

    Args:
        model_dir: folder that ``train`` wrote.
        required: a fact that it must state.

    Returns:
        Its content; empty where nothing was trained yet.

    Raises:
        WeightsError: if ``model.json`` is damaged or lacks the fact.
    """
    file = Path(model_dir) / "model.json"
    if not file.is_file():
        return {}
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        card = None
    if not isinstance(card, dict) or (required is not None and required not in card):
        action = "train again, or copy model.json from where the weights came"
        raise WeightsError("does not say what was trained", file=file, field=required, action=action)
    return card


def trained(model_dir: str | PathLike[str], key: str, default: Any) -> Any:
    """What the training in a folder used, from its ``model.json``.

    Args:
        model_dir: folder that ``train`` wrote.
        key: which fact, e.g. ``architecture``, ``schema`` or ``spatial_size``.
        default: the answer where nothing was trained yet.

    Returns:
        The fact.

    Raises:
        WeightsError: if ``model.json`` is damaged or lacks the fact.
    """
    return model_card(model_dir, required=key).get(key, default)


def trained_schema(model_dir: str | PathLike[str], default: str) -> str:
    """Landmark schema of the training in a folder: the ``schema.yaml`` it left there.

    Args:
        model_dir: folder that ``train`` wrote.
        default: the answer where nothing was trained yet.

    Returns:
        What :meth:`monai_landmark.data.schema.LandmarkSchema.load` takes.
    """
    file = Path(model_dir) / "schema.yaml"
    return str(file) if file.is_file() else str(trained(model_dir, "schema", default))


class TrainedWeights:
    """Handler that fills a network with the weights that ``train`` wrote, every tensor of it.

    Args:
        network: the network, filled when an engine starts.
        path: ``model.safetensors`` or ``model.pt``.
    """

    def __init__(self, network: nn.Module, path: str | PathLike[str]) -> None:
        self.network, self.path = network, path

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator.

        Args:
            engine: the evaluator.
        """
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine | None = None) -> None:
        """Load the weights.

        Args:
            engine: unused; lets this be an event handler.

        Raises:
            WeightsError: if the file is absent, damaged, or not of this very network.
        """
        weights = read_state_dict(self.path)
        try:
            self.network.load_state_dict(weights)
        except RuntimeError as error:
            raise WeightsError(
                "weights of another network",
                file=self.path,
                value=str(error),
                action="give the architecture and schema that the weights were trained with",
            ) from error
