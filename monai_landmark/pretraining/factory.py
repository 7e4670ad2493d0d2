"""One function from a name to a pre-training objective with its network."""

from __future__ import annotations

import inspect
from importlib import import_module
from os import PathLike
from typing import Any

import timm
from torch import nn

from monai_landmark.errors import ConfigurationError
from monai_landmark.networks import DiffusionUNet, EncoderLandmarkUNet
from monai_landmark.networks.diffusion_unet import SIZES
from monai_landmark.pretraining.diffusion import DiffusionObjective
from monai_landmark.pretraining.objective import Objective

__all__ = ["OBJECTIVES", "objective_options", "objective_views", "pretraining_objective"]

OBJECTIVES = {
    "ddpm": "ddpm.DDPMObjective",
    "flow": "flow.FlowObjective",
    "conditional": "ddpm.ConditionalObjective",
    "aligned": "aligned.AlignedObjective",
    "simclr": "simclr.SimCLRObjective",
    "mocov3": "mocov3.MoCoV3Objective",
    "dino": "dino.DINOObjective",
    "masked": "masked.MaskedObjective",
}
_TOLD = ("conditional", "aligned")  # the source of a film
_DEFAULTS = {True: "diffusion-tiny", False: "tf_efficientnet_lite0"}
_PREFIX = "diffusion-"


def pretraining_objective(
    name: str,
    architecture: str = "auto",
    initialization: str | PathLike[str] = "random",
    sources: int = 0,
    gradient_checkpointing: bool = False,
    **options: Any,
) -> Objective:
    """Build an objective and the network that it trains.

    Args:
        name: ``ddpm``, ``flow``, ``conditional``, ``aligned``, ``simclr``, ``mocov3``, ``dino`` or ``masked``.
        architecture: ``diffusion-tiny``, ``-small`` or ``-base`` for a diffusion objective; the name of a timm encoder
            for the others, and for ``ddpm`` and ``flow`` too, which then train encoder and decoder of
            :class:`monai_landmark.networks.EncoderLandmarkUNet` to denoise without being told how noisy a film is;
            ``auto``: ``diffusion-tiny`` or ``tf_efficientnet_lite0``.
        initialization: of a timm encoder: ``random``, ``imagenet`` or a weights file.
        sources: number of sources of films, without the null condition; for ``conditional`` and ``aligned``.
        gradient_checkpointing: of a diffusion U-Net, see :class:`monai_landmark.networks.DiffusionUNet`.
        **options: of the objective; None leaves its default.

    Returns:
        The objective.

    Raises:
        ConfigurationError: if a name is unknown, an option is not one of this objective, or a package is missing.
    """
    objective: Any = _objective_class(name)
    given = {option: value for option, value in options.items() if value is not None}
    diffusion = issubclass(objective, DiffusionObjective)
    architecture = _DEFAULTS[diffusion] if architecture == "auto" else architecture
    known = objective_options(name)
    if unknown := sorted(given.keys() - known):
        raise ConfigurationError(
            f"no option of the objective {name}", field=unknown[0], value=given[unknown[0]], expected=" | ".join(known)
        )
    if not diffusion:
        contrastive: Objective = objective(encoder=architecture, initialization=initialization, **given)
        return contrastive
    told = sources + 1 if name in _TOLD else None
    denoising: Objective = objective(_denoiser(architecture, initialization, told, gradient_checkpointing), **given)
    return denoising


def objective_views(name: str) -> int:
    """How many views of a film an objective takes.

    Args:
        name: of the objective.

    Returns:
        1 or 2.
    """
    return _objective_class(name).views


def objective_options(name: str) -> list[str]:
    """What one may choose of an objective: what its constructor takes, and its parents' where it passes them on.

    Args:
        name: of the objective.

    Returns:
        Names of keywords.
    """
    names: list[str] = []
    for kind in _objective_class(name).__mro__:
        parameters = inspect.signature(kind).parameters.values()
        names += [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            break
    return [name for name in dict.fromkeys(names) if name not in ("network", "encoder", "initialization")]


def _objective_class(name: str) -> type[Objective]:
    """The class behind a name, imported when asked for: lightly, which some need, takes seconds and is an extra."""
    if name not in OBJECTIVES:
        raise ConfigurationError("unknown objective", field="objective", value=name, expected=" | ".join(OBJECTIVES))
    module, kind = OBJECTIVES[name].split(".")
    try:
        found: type[Objective] = getattr(import_module(f"monai_landmark.pretraining.{module}"), kind)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the objective {name} needs a package that is not installed",
            field="objective",
            value=error.name,
            action="pip install -c constraints.txt -e '.[contrastive]'",
        ) from error
    return found


def _denoiser(
    architecture: str, initialization: str | PathLike[str], classes: int | None, checkpointing: bool
) -> nn.Module:
    """A network that a film goes into and a film comes out of."""
    size = architecture.removeprefix(_PREFIX)
    random = str(initialization) == "random"
    if architecture.startswith(_PREFIX) and size in SIZES and random:
        return DiffusionUNet(size=size, num_class_embeds=classes, gradient_checkpointing=checkpointing)
    if architecture.startswith(_PREFIX) and size in SIZES:
        raise ConfigurationError(
            "a diffusion U-Net starts from random weights",
            field="initialization",
            value=initialization,
            expected="random",
            action="name a timm encoder as the architecture to start from ImageNet",
        )
    if not timm.is_model(architecture) or classes is not None:
        sizes = " | ".join(f"{_PREFIX}{name}" for name in SIZES)
        expected = sizes if classes is not None else f"{sizes} | a timm encoder"
        problem = "not a network that this objective can train"
        raise ConfigurationError(problem, field="architecture", value=architecture, expected=expected)
    imagenet = str(initialization) == "imagenet"
    file = None if imagenet or random else initialization
    return EncoderLandmarkUNet(1, architecture, pretrained=imagenet, weights_file=file)
