"""Pre-training on films without annotation: objectives, and what one needs to see of them while they train."""

from monai_landmark.pretraining.diffusion import DiffusionObjective
from monai_landmark.pretraining.factory import objective_views, pretraining_objective
from monai_landmark.pretraining.objective import Objective, objective_loss

__all__ = ["DiffusionObjective", "Objective", "objective_loss", "objective_views", "pretraining_objective"]
