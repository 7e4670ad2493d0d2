"""Label-efficient anatomical landmarks in X-ray films, on MONAI."""

__version__ = "0.1.0"
