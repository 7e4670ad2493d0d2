"""What comes from elsewhere: bundles, configurations and weights are looked at before they are opened."""

from monai_landmark.safety.loader import TRUST_HELP, open_config
from monai_landmark.safety.tensors import check_torch_file, check_weights, refuse_inflated
from monai_landmark.safety.verification import Verification, verify

__all__ = [
    "TRUST_HELP",
    "Verification",
    "check_torch_file",
    "check_weights",
    "open_config",
    "refuse_inflated",
    "verify",
]
