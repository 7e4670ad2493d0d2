"""The app that ``monailabel start_server --app`` looks for; all of it is in :mod:`monai_landmark.label.organ_app`."""

from monailabel.interfaces.app import MONAILabelApp

from monai_landmark.label.organ_app import OrganApp


class CtOrgans(OrganApp, MONAILabelApp):
    """MONAI Label takes the class of this file that names its own among the first bases."""
