"""Dividing patients among training, validation and test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from monai_landmark.errors import ConfigurationError

__all__ = ["DEFAULT_FRACTIONS", "Fractions", "split_by_rank"]


@dataclass(frozen=True)
class Fractions:
    """A split by patient, drawn once for a seed, whatever the order of the patients.

    The order is that of SHA-256 of seed and patient, which no version of a random generator can change.

    Attributes:
        test: share of the patients that is tested on, at least one when above 0.
        validation: share of the patients for validation, at least one when above 0.
        seed: another seed, another split.
    """

    test: float = 0.2
    validation: float = 0.0
    seed: int = 0

    def __str__(self) -> str:
        """The split in words."""
        return f"by patient, test {self.test:g}, validation {self.validation:g}, seed {self.seed}"

    def divide(self, patients: Iterable[str]) -> dict[str, str]:
        """Section of each patient.

        Args:
            patients: whom the annotated films show; may repeat.

        Returns:
            ``training``, ``validation`` or ``test`` by patient.

        Raises:
            ConfigurationError: impossible fractions, or nobody is left for training.
        """
        shares = (self.test, self.validation)
        unique = sorted(set(patients), key=lambda name: hashlib.sha256(f"{self.seed}:{name}".encode()).hexdigest())
        possible = all(0 <= share < 1 for share in shares)
        test, validation = (max(1, round(share * len(unique))) if 0 < share < 1 else 0 for share in shares)
        if possible and not unique:
            return {}
        if not possible or test + validation >= len(unique):
            raise ConfigurationError(
                f"{len(unique)} annotated patients cannot be divided like this",
                field="test fraction, validation fraction",
                value=shares,
                expected="shares within 0 and 1 that leave a patient for training",
                action="lower the fractions or annotate films of more patients",
            )
        sections = ["test"] * test + ["validation"] * validation
        sections += ["training"] * (len(unique) - len(sections))
        return dict(zip(unique, sections, strict=True))


DEFAULT_FRACTIONS = Fractions()
"""A fifth of the patients is tested on, seed 0."""


def split_by_rank(names: Iterable[str], training: int, validation: int) -> dict[str, str]:
    """Section of each name by its place in sorted order, as the label-efficient papers do it.

    Args:
        names: names of all annotated films of the data set, present or not.
        training: how many of the first are training.
        validation: how many of the next are validation; the rest is test.

    Returns:
        ``training``, ``validation`` or ``test`` by name.
    """
    edges = (training, training + validation)
    return {
        name: "training" if rank < edges[0] else "validation" if rank < edges[1] else "test"
        for rank, name in enumerate(sorted(names))
    }
