"""What makes a run resumable and honest: keyed randomness, atomic files, guards, precision."""

from monai_landmark.engines.averaging import AverageHandler
from monai_landmark.engines.batches import image_and, image_told_source, loss_of, lower_is_better
from monai_landmark.engines.checkpoints import ModelSaver, TrainingStateSaver, save_model
from monai_landmark.engines.global_loss import GlobalLossHandler
from monai_landmark.engines.guards import NonFiniteLossGuard
from monai_landmark.engines.heap import keep_freed_memory
from monai_landmark.engines.mixture import MixtureInferer, inference_facts
from monai_landmark.engines.precision import PrecisionInferer
from monai_landmark.engines.progress import ProgressHandler, TransferReportHandler
from monai_landmark.engines.randomness import Draw, DrawSampler, KeyedDataset, KeyedSteps
from monai_landmark.engines.run_guard import guard_run
from monai_landmark.engines.schedule import ProgressSchedule
from monai_landmark.engines.throughput import ThroughputHandler
from monai_landmark.engines.views import ViewInferer
from monai_landmark.files import file_sha256, replace_file

__all__ = [
    "AverageHandler",
    "Draw",
    "DrawSampler",
    "GlobalLossHandler",
    "KeyedDataset",
    "KeyedSteps",
    "MixtureInferer",
    "ModelSaver",
    "NonFiniteLossGuard",
    "PrecisionInferer",
    "ProgressHandler",
    "ProgressSchedule",
    "ThroughputHandler",
    "TrainingStateSaver",
    "TransferReportHandler",
    "ViewInferer",
    "file_sha256",
    "guard_run",
    "image_and",
    "image_told_source",
    "inference_facts",
    "keep_freed_memory",
    "loss_of",
    "lower_is_better",
    "replace_file",
    "save_model",
]
