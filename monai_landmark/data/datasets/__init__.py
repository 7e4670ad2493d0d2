"""Adapters: from a public data set, or one's own folder, to a datalist."""

from monai_landmark.data.datasets.chest6 import prepare_chest6
from monai_landmark.data.datasets.dha import prepare_dha
from monai_landmark.data.datasets.folder import prepare_folder
from monai_landmark.data.datasets.isbi2015 import prepare_isbi2015

__all__ = ["prepare_chest6", "prepare_dha", "prepare_folder", "prepare_isbi2015"]
