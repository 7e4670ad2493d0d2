"""The slices of scans, one scan after another, as a network is shown them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_landmark.data.scan_list import slices_of
from monai_landmark.data.scan_reader import SCANS

__all__ = ["slices_to_segment"]


def slices_to_segment(scans: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Items of all slices that are to be segmented; the scans' labels are not among them.

    Args:
        scans: items of a list of scans, or of :func:`monai_landmark.data.scan_reader.find_scans`, which are opened to
            count their slices.

    Returns:
        See :func:`monai_landmark.data.scan_list.slices_of`.
    """
    found = []
    for scan in scans:
        count = scan.get("slices") or len(SCANS.scan(scan["image"]))
        found += slices_of({"image": scan["image"], "id": scan["id"], "slices": count, "blocks": scan.get("blocks")})
    return found
