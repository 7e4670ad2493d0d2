"""Stands in for the package ``itk``, which MONAI Label imports at its start and the landmark app never uses."""


def __getattr__(name: str) -> object:
    """Raise: nothing of the package is here."""
    raise AttributeError(f"itk.{name}: not installed, and the landmark app needs nothing of it")
