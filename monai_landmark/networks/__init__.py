"""Landmark networks: the diffusion U-Net and U-Nets on any timm encoder."""

from monai_landmark.networks.encoder_unet import EncoderLandmarkUNet
from monai_landmark.networks.initialization import TrainedWeights, landmark_network, model_card, trained, trained_schema
from monai_landmark.networks.landmark_unet import DiffusionUNet, LandmarkUNet
from monai_landmark.networks.weights import TransferReport, read_state_dict, transfer_weights

__all__ = [
    "DiffusionUNet",
    "EncoderLandmarkUNet",
    "LandmarkUNet",
    "TrainedWeights",
    "TransferReport",
    "landmark_network",
    "model_card",
    "read_state_dict",
    "trained",
    "trained_schema",
    "transfer_weights",
]
