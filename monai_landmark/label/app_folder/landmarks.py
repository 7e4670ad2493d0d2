"""The app that ``monailabel start_server --app`` looks for; all of it is in :mod:`monai_landmark.label.app`."""

from monailabel.interfaces.app import MONAILabelApp

from monai_landmark.label.app import LandmarkApp


class XrayLandmarks(LandmarkApp, MONAILabelApp):
    """MONAI Label takes the class of this file that names its own among the first bases."""
