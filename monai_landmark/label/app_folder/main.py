"""The app that ``monailabel start_server --app`` looks for; all of it is in :mod:`monai_landmark.label.app`."""

from monai_landmark.label.app import LandmarkApp


class XrayLandmarks(LandmarkApp):
    """MONAI Label takes the class that is defined in this very file."""
