"""Annotation files: each format is read and written, with one way in, :func:`read_annotations`."""

from monai_landmark.data.annotations.base import Annotation
from monai_landmark.data.annotations.coco import read_coco, write_coco
from monai_landmark.data.annotations.csv_table import read_csv, write_csv
from monai_landmark.data.annotations.dha import read_dha, write_dha
from monai_landmark.data.annotations.isbi import read_isbi, write_isbi
from monai_landmark.data.annotations.plain_json import read_plain_json, write_plain_json
from monai_landmark.data.annotations.ratio import read_ratio, write_ratio
from monai_landmark.data.annotations.reading import FORMATS, read_annotations, sniff_format
from monai_landmark.data.annotations.slicer import read_fcsv, read_mrk_json, write_fcsv, write_mrk_json

__all__ = [
    "FORMATS",
    "Annotation",
    "read_annotations",
    "read_coco",
    "read_csv",
    "read_dha",
    "read_fcsv",
    "read_isbi",
    "read_mrk_json",
    "read_plain_json",
    "read_ratio",
    "sniff_format",
    "write_coco",
    "write_csv",
    "write_dha",
    "write_fcsv",
    "write_isbi",
    "write_mrk_json",
    "write_plain_json",
    "write_ratio",
]
