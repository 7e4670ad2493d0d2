"""Landmark networks: the diffusion U-Net and U-Nets on any timm encoder."""

from monai_landmark.networks.diffusion_unet import DiffusionUNet
from monai_landmark.networks.encoder_unet import EncoderLandmarkUNet
from monai_landmark.networks.feature_probe import FeatureProbe, FrozenFeatures, frozen_features
from monai_landmark.networks.features import FeatureTaps
from monai_landmark.networks.initialization import (
    TrainedWeights,
    ensemble_members,
    landmark_network,
    model_card,
    trained,
    trained_network,
    trained_schema,
    transfer_settings,
)
from monai_landmark.networks.landmark_unet import LandmarkUNet
from monai_landmark.networks.noise_levels import NoiseLevels, NoisyLandmarkUNet
from monai_landmark.networks.synchronized import synchronized
from monai_landmark.networks.weights import TransferReport, read_state_dict, transfer_weights

__all__ = [
    "DiffusionUNet",
    "EncoderLandmarkUNet",
    "FeatureProbe",
    "FeatureTaps",
    "FrozenFeatures",
    "LandmarkUNet",
    "NoiseLevels",
    "NoisyLandmarkUNet",
    "TrainedWeights",
    "TransferReport",
    "ensemble_members",
    "frozen_features",
    "landmark_network",
    "model_card",
    "read_state_dict",
    "synchronized",
    "trained",
    "trained_network",
    "trained_schema",
    "transfer_settings",
    "transfer_weights",
]
