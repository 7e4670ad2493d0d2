"""Names and numbers of organs in public label sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from monai_landmark.errors import ConfigurationError

__all__ = ["FLARE2022", "LABEL_SETS", "TOLERANCES_MM", "organ_numbers", "organ_table"]

FLARE2022 = (
    "liver",
    "right_kidney",
    "spleen",
    "pancreas",
    "aorta",
    "inferior_vena_cava",
    "right_adrenal_gland",
    "left_adrenal_gland",
    "gallbladder",
    "esophagus",
    "stomach",
    "duodenum",
    "left_kidney",
)
"""Organs of the FLARE 2022 challenge (Ma et al., Lancet Digital Health 2024) in the order of their numbers, from 1."""

_TOTALSEGMENTATOR_V2 = {
    1: "spleen",
    2: "right_kidney",
    3: "left_kidney",
    4: "gallbladder",
    5: "liver",
    6: "stomach",
    7: "pancreas",
    8: "right_adrenal_gland",
    9: "left_adrenal_gland",
    15: "esophagus",
    19: "duodenum",
    52: "aorta",
    63: "inferior_vena_cava",
}
"""Of the task ``total`` of TotalSegmentator 2 (its ``map_to_binary.py``); version 1 numbers them otherwise."""

LABEL_SETS: dict[str, dict[int, str]] = {
    "flare2022": dict(enumerate(FLARE2022, start=1)),
    "totalsegmentator2": _TOTALSEGMENTATOR_V2,
}
"""Number in a label file -> organ. Other numbers of a file are background."""

TOLERANCES_MM: dict[str, float] = {
    **dict.fromkeys(("liver", "pancreas", "stomach"), 5.0),
    **dict.fromkeys(("right_kidney", "left_kidney", "spleen", "esophagus"), 3.0),
    **dict.fromkeys(("aorta", "inferior_vena_cava", "right_adrenal_gland", "left_adrenal_gland", "gallbladder"), 2.0),
    "duodenum": 7.0,
}
"""Distance within which a surface counts as right in the normalized surface distance, as FLARE 2022 scores it."""


def organ_numbers(label_set: str) -> dict[int, str]:
    """Numbers of a label set.

    Args:
        label_set: one of :data:`LABEL_SETS`.

    Returns:
        Number in a file -> organ.

    Raises:
        ConfigurationError: if there is no such set.
    """
    if label_set not in LABEL_SETS:
        raise ConfigurationError("unknown label set", field="labels", value=label_set, expected=" | ".join(LABEL_SETS))
    return LABEL_SETS[label_set]


def organ_table(numbers: Mapping[int, str], organs: Sequence[str]) -> dict[int, int]:
    """From the numbers of a label file to the classes of a network.

    Args:
        numbers: number in the file -> organ.
        organs: the network's organs; the first has class 1, the background 0.

    Returns:
        Number in the file -> class, for the organs that are among them.
    """
    return {number: organs.index(organ) + 1 for number, organ in numbers.items() if organ in organs}
