"""The diffusion objective of a finished pre-training, from the folder that it left."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from monai_landmark.errors import ConfigurationError
from monai_landmark.networks import TrainedWeights, model_card
from monai_landmark.pretraining.diffusion import DiffusionObjective
from monai_landmark.pretraining.factory import objective_options, pretraining_objective

__all__ = ["trained_objective"]


def trained_objective(folder: str | PathLike[str]) -> DiffusionObjective:
    """Build the objective of a pre-training and fill its network.

    Args:
        folder: with ``model.safetensors`` and ``model.json``, as ``pretrain`` wrote them.

    Returns:
        The objective, in evaluation mode.

    Raises:
        ConfigurationError: if it is none that denoises.
        WeightsError: if a file is absent, damaged, or does not belong to the other.
    """
    card = model_card(folder, required="objective")
    if not card:
        action = "give a folder that `pretrain` wrote"
        raise ConfigurationError("nothing was pre-trained here", file=folder, field="pretrained", action=action)
    options = {name: card[name] for name in objective_options(card["objective"]) if name in card}
    objective = pretraining_objective(
        card["objective"], card["architecture"], sources=len(card.get("sources", ())), **options
    )
    if not isinstance(objective, DiffusionObjective):
        expected = "ddpm, flow, conditional or aligned"
        raise ConfigurationError(
            "this objective draws nothing", field="objective", value=card["objective"], expected=expected
        )
    TrainedWeights(objective.network, Path(folder) / "model.safetensors")()
    return objective.eval()
