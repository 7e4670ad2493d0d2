"""Stands in for the package ``pydicom_seg``, which MONAI Label imports at its start and the landmark app never uses."""


def __getattr__(name: str) -> object:
    """Raise: nothing of the package is here."""
    raise AttributeError(f"pydicom_seg.{name}: not installed, and the landmark app needs nothing of it")
