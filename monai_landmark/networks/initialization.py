"""One function from a name and an initialization to a landmark network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias

import timm
import torch
from ignite.engine import Engine, Events
from torch import nn

from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.files import file_sha256
from monai_landmark.networks.diffusion_unet import SIZES
from monai_landmark.networks.encoder_unet import EncoderLandmarkUNet
from monai_landmark.networks.feature_probe import HEAD_WIDTH, HEADS, FeatureProbe, FrozenFeatures, LinearHead
from monai_landmark.networks.landmark_unet import LandmarkUNet
from monai_landmark.networks.noise_levels import NoiseLevels, NoisyLandmarkUNet
from monai_landmark.networks.plain import PLAIN, PlainNetwork
from monai_landmark.networks.weights import read_state_dict

__all__ = [
    "LandmarkNetwork",
    "TrainedWeights",
    "ensemble_members",
    "landmark_network",
    "model_card",
    "trained",
    "trained_network",
    "trained_schema",
    "transfer_settings",
]

LandmarkNetwork: TypeAlias = EncoderLandmarkUNet | LandmarkUNet | PlainNetwork | FeatureProbe

_DIFFUSION = "diffusion-"


def landmark_network(
    landmarks: int,
    architecture: str = "auto",
    initialization: str | PathLike[str] = "random",
    frozen: bool | Literal["encoder"] = False,
    timesteps: Sequence[int] = (0,),
    noise: bool = False,
    schedule: Mapping[str, Any] | None = None,
    probe: Mapping[str, Any] | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> LandmarkNetwork:
    """Build a landmark network and fill it.

    Args:
        landmarks: number of landmarks K.
        architecture: ``diffusion-tiny``, ``diffusion-small``, ``diffusion-base``, the name of a timm encoder, or one
            of :data:`monai_landmark.networks.plain.PLAIN`, which only start from random weights;
            ``auto``: the one that ``model.json`` beside the weights file states.
        initialization: ``random``; ``imagenet`` (timm's own weights, for an encoder); or a weights file: one that
            pre-training wrote, or the encoder's own weights for a timm encoder.
        frozen: train only a light head on the network's features, see
            :class:`~monai_landmark.networks.feature_probe.FeatureProbe`; ``"encoder"``: the decoder and the head;
            otherwise the whole network.
        timesteps: what a diffusion network is told; 0 is a clean film. Of several the features are averaged (those of a
            frozen network concatenated, unless ``probe`` says otherwise).
        noise: noise the film to each of the timesteps first, by the schedule of the pre-training: the same noise for
            every film, drawn anew only while the whole network trains.
        schedule: the noise, see :func:`~monai_landmark.networks.noise_levels.noise_scheduler`; ``model.json`` beside
            the weights file by default.
        probe: of a frozen network: ``levels``, ``combine``, the ``head`` and its ``width``.
        dropout: of a timm encoder's network: share of the last feature maps that is dropped in training, and drawn
            anew by :class:`monai_landmark.engines.MixtureInferer`.
        **options: passed on to the network.

    Returns:
        The network, with its ``transfer_report`` where a file was read.

    Raises:
        ConfigurationError: if the architecture is unknown, or settings do not go together.
        WeightsError: if the file does not fit, or ``model.json`` lacks what is needed of it.
    """
    random, imagenet = str(initialization) == "random", str(initialization) == "imagenet"
    weights_file = None if random or imagenet else initialization
    if architecture == "auto":
        architecture = _stated_architecture(weights_file)
    levels = _noise_levels(timesteps, noise, schedule, weights_file)
    if dropout:
        options["dropout"] = dropout
    if frozen not in (False, True, "encoder"):
        expected = "False | True | 'encoder'"
        raise ConfigurationError("cannot be frozen so", field="frozen", value=frozen, expected=expected)
    if probe and frozen is not True:
        problem = "a network whose own layers are trained has no probe"
        raise ConfigurationError(problem, field="probe", value=dict(probe), action="set frozen=True")
    network = _whole_network(landmarks, architecture, imagenet, levels, weights_file=weights_file, **options)
    if not frozen:
        return network
    if isinstance(network, PlainNetwork):
        action = "train it as a whole (frozen=False)"
        raise ConfigurationError("this network has no pre-trained part", field="frozen", value=frozen, action=action)
    if frozen == "encoder":
        network.freeze_encoder()
        return network
    settings = dict(probe or {})
    width, head = settings.pop("width", HEAD_WIDTH), settings.pop("head", HEADS[0])
    features = FrozenFeatures(network, noise=levels, **settings)
    return FeatureProbe(features, landmarks, width, network.transfer_report, head)


def _whole_network(
    landmarks: int, architecture: str, imagenet: bool, levels: NoiseLevels, **options: Any
) -> EncoderLandmarkUNet | LandmarkUNet | PlainNetwork:
    if architecture in PLAIN or (not architecture.startswith(_DIFFUSION) and timm.is_model(architecture)):
        if not levels.clean:
            raise ConfigurationError(
                "an encoder knows no timesteps and no noise",
                field="timesteps, noise",
                value=levels.describe(),
                expected="timesteps=(0,) and noise=False, or a diffusion network",
            )
        kind = PlainNetwork if architecture in PLAIN else EncoderLandmarkUNet
        return kind(landmarks, architecture, pretrained=imagenet, **options)
    _refuse_diffusion(architecture, imagenet)
    if "dropout" in options:
        action = "train without it, or a timm encoder"
        raise ConfigurationError("the diffusion U-Net has no dropout", field="dropout", action=action)
    size = architecture.removeprefix(_DIFFUSION)
    if levels.scheduler is None and len(levels) == 1:
        return LandmarkUNet(landmarks, size=size, timestep=levels.timesteps[0], **options)
    return NoisyLandmarkUNet(landmarks, levels, size=size, **options)


def _stated_architecture(weights_file: str | PathLike[str] | None) -> str:
    """What ``model.json`` beside a weights file says; a missing file is an error, not a default."""
    if weights_file is None:
        raise ConfigurationError(
            "only a weights file says which architecture it is of",
            field="architecture",
            value="auto",
            action="name the architecture",
        )
    folder = Path(weights_file).parent
    stated = model_card(folder, required="architecture").get("architecture")
    if not isinstance(stated, str):
        raise WeightsError(
            "nothing says which architecture the weights are of",
            file=folder / "model.json",
            field="architecture",
            action="name the architecture, or keep model.json beside the weights",
        )
    return stated


def _noise_levels(
    timesteps: Sequence[int], noise: bool, schedule: Mapping[str, Any] | None, weights_file: str | PathLike[str] | None
) -> NoiseLevels:
    if not noise:
        return NoiseLevels(timesteps)
    if schedule is None and weights_file is None:
        raise ConfigurationError(
            "without pre-training there is no noise to repeat",
            field="schedule",
            expected="e.g. {'timesteps': 500, 'schedule': 'linear_beta'}",
            action="give the schedule, or leave the films clean (noise=False)",
        )
    return NoiseLevels(timesteps, model_card(Path(weights_file or ".").parent) if schedule is None else schedule)


def _refuse_diffusion(architecture: str, imagenet: bool) -> None:
    """Refuse what is no diffusion network, and one that is to start from ImageNet."""
    if not architecture.startswith(_DIFFUSION) or architecture.removeprefix(_DIFFUSION) not in SIZES:
        expected = " | ".join([*(f"{_DIFFUSION}{name}" for name in SIZES), *PLAIN, "a timm encoder"])
        raise ConfigurationError("unknown architecture", field="architecture", value=architecture, expected=expected)
    if imagenet:
        raise ConfigurationError(
            "there are no ImageNet weights for the diffusion U-Net",
            field="initialization",
            value="imagenet",
            expected="random or a file that pre-training wrote",
            action="name a timm encoder as the architecture to start from ImageNet",
        )


def transfer_settings(network: nn.Module) -> dict[str, Any]:
    """How a network looks at a film: what :func:`landmark_network` must be told to build it once more.

    Args:
        network: made by :func:`landmark_network`.

    Returns:
        JSON facts for the model card: ``frozen``, ``timesteps``, ``noise``, ``schedule`` and ``probe``, and ``dropout``
        where there is any.
    """
    frozen: bool | str = isinstance(network, FeatureProbe)
    if getattr(network, "encoder_frozen", False):
        frozen = "encoder"
    if isinstance(network, FeatureProbe):
        levels = network.features.noise
    else:
        levels = getattr(network, "levels", None) or NoiseLevels((getattr(network, "timestep", 0),))
    settings: dict[str, Any] = {
        "frozen": frozen,
        "timesteps": [int(t) for t in levels.timesteps],
        "noise": levels.scheduler is not None,
        "schedule": levels.schedule,
        "probe": None,
    }
    if isinstance(network, FeatureProbe):
        features, width = network.features, network.head.width
        settings["probe"] = {"levels": list(features.levels), "combine": features.combine, "width": width}
        if isinstance(network.head, LinearHead):
            settings["probe"] = {"levels": list(features.levels), "combine": features.combine, "head": "linear"}
    elif isinstance(network, EncoderLandmarkUNet) and network.dropout.p:
        settings["dropout"] = network.dropout.p
    return settings


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


def trained_network(landmarks: int, architecture: str, model_dir: str | PathLike[str]) -> LandmarkNetwork:
    """The network whose weights are in a folder, not filled yet: looking at films as it did in training.

    Args:
        landmarks: number of landmarks K.
        architecture: see :func:`landmark_network`.
        model_dir: folder that ``train`` wrote; where its ``model.json`` has no ``transfer`` (nothing was trained, or
            before there was a choice), the whole network sees the clean film.

    Returns:
        The network.

    Raises:
        ConfigurationError: if the architecture is unknown, or the settings do not go together.
        WeightsError: if ``model.json`` is damaged.
    """
    return landmark_network(landmarks, architecture, **model_card(model_dir).get("transfer", {}))


def ensemble_members(
    folders: Sequence[str | PathLike[str]],
    model_dir: str | PathLike[str],
    landmarks: int,
    device: torch.device | str = "cpu",
) -> list[LandmarkNetwork]:
    """Further trained networks that may be asked beside one.

    Args:
        folders: that ``train`` wrote.
        model_dir: folder of the network that they stand beside.
        landmarks: number of landmarks K.
        device: where they run.

    Returns:
        The networks, filled, in evaluation mode.

    Raises:
        WeightsError: one of another schema or grid, or whose weights are absent or do not fit.
    """
    own = model_card(model_dir)
    found = []
    for folder in folders:
        card = model_card(folder, required="architecture")
        for fact in ("schema", "spatial_size"):
            if card.get(fact) != own.get(fact):
                raise WeightsError(
                    "a member of another kind than the network",
                    file=Path(folder) / "model.json",
                    field=fact,
                    value=card.get(fact),
                    expected=str(own.get(fact)),
                    action="name folders that were trained on the same landmarks and grid",
                )
        network = trained_network(landmarks, card["architecture"], folder)
        TrainedWeights(network, Path(folder) / "model.safetensors")()
        found.append(network.eval().to(device))
    return found


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


def _refuse_changed(file: Path) -> None:
    """Refuse weights that are not those of the card beside them; the card states the hash of one file only."""
    stated = model_card(file.parent).get("sha256") if file.name == "model.safetensors" else None
    if stated is not None and file_sha256(file) != stated:
        raise WeightsError(
            "not the weights that were trained here",
            file=file,
            field="sha256",
            value=file_sha256(file),
            expected=f"{stated}, as model.json says",
            action="copy model.safetensors and model.json again, both from where they came",
        )


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
            WeightsError: if the file is absent, damaged, not the one of ``model.json``, or not of this very network.
        """
        weights = read_state_dict(self.path)
        _refuse_changed(Path(self.path))
        try:
            self.network.load_state_dict(weights)
        except RuntimeError as error:
            raise WeightsError(
                "weights of another network",
                file=self.path,
                value=str(error),
                action="give the architecture and schema that the weights were trained with",
            ) from error
