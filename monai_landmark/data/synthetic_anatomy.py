"""A parametric pelvis with hips in front view: smooth curves, and landmarks computed from them.

The body frame is in millimetres with its origin midway between the femoral heads: u to the patient's left (the film's
right), v down, z towards the front. A template half pelvis is scaled, turned in space (tilt, rotation) and projected,
so a few numbers give two different sides. The femora hang in the sockets with their own angles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .synthetic_curves import Curve, FloatArray
from .synthetic_shape import HipShape, PelvisShape

__all__ = ["LANDMARK_NAMES", "Hip", "Pelvis", "build_pelvis"]

_PAIRED = (
    "iliac_crest",
    "anterior_superior_iliac_spine",
    "acetabular_edge",
    "teardrop",
    "ischial_tuberosity",
    "femoral_head",
    "greater_trochanter",
    "lesser_trochanter",
    "neck_shaft_intersection",
    "femoral_shaft",
)
LANDMARK_NAMES: tuple[str, ...] = (
    *(f"{side}_{name}" for name in _PAIRED for side in ("right", "left")),
    "sacral_endplate",
    "pubic_symphysis",
)

_SHAFT_LEVEL_MM = 80.0
_SIDES = {"right": -1.0, "left": 1.0}
_HEAD = (90.0, 0.0, 0.0)
# Half-pelvis outline (u, v, z), from the symphysis up the inner rim, along the crest and down the outer side.
_ILIUM = np.array(
    [
        *[(3.0, 30, 45), (8, 25.5, 46), (17, 23, 45), (29, 18, 40), (41, 8, 30), (50.5, -6, 20), (56, -23, 10)],
        *[(57.5, -38, 0), (54, -50, -15), (46, -57, -30), (36, -63, -40), (28, -79, -55), (22, -104, -65)],
        *[(25, -128, -65), (40, -144, -50), (63, -152, -25), (89, -147.5, 0), (112, -133, 25), (126, -113, 45)],
        *[(131.5, -96, 55), (128.5, -83, 52), (119, -69, 45), (113, -57, 40)],
    ]
)
_ISCHIUM = np.array(
    [
        *[(98, 17, -25), (87, 25, -28), (77.5, 32, -30), (74.5, 43, -34), (77, 57, -36), (73, 71, -34)],
        *[(63.5, 81.5, -28), (51, 84, -20), (39, 78, -5), (27, 68.5, 12), (16, 62, 30), (8, 61.5, 38), (3.2, 56, 42)],
        *[(2.6, 43, 45)],
    ]
)
_FORAMEN = np.array(
    [
        *[
            (24, 38, 40),
            (31, 33, 38),
            (42, 29, 30),
            (53, 30, 18),
            (59, 38, 5),
            (58.5, 49, -8),
            (53, 60, -12),
            (45, 64, -8),
        ],
        *[(36, 59, 5), (29, 52, 18), (24.5, 45, 32)],
    ],
    dtype=float,
)
_SACRUM = np.array(
    [
        *[(0, -104, -32), (14, -105, -32), (24, -107, -32), (31, -113, -40), (45, -110, -45), (55, -98, -50)],
        *[(53, -80, -60), (43, -62, -75), (34, -46, -85), (25, -30, -90), (16, -17, -88), (9, -8, -84), (0, -6, -84)],
    ],
    dtype=float,
)


@dataclass(frozen=True)
class Hip:
    """One side, in mm of the film plane; ``lateral``, ``down`` and ``axis`` (down the shaft) are unit vectors."""

    outline: Curve
    foramen: Curve
    femur: Curve
    head: FloatArray
    head_mm: float
    lines: dict[str, FloatArray]
    lateral: FloatArray
    down: FloatArray
    axis: FloatArray
    intersection: FloatArray
    scale: float
    shape: HipShape


@dataclass(frozen=True)
class Pelvis:
    """A whole pelvis in the film plane: two hips, the sacrum, the vertebrae above it and the landmarks.

    ``landmarks_mm`` is ``(K, 2)`` in the order of :data:`LANDMARK_NAMES`; ``to_film`` maps the body frame's ``(N, 2)``
    (u, v) to film (x, y) in mm.
    """

    shape: PelvisShape
    origin_mm: tuple[float, float]
    hips: dict[str, Hip]
    sacrum: Curve
    landmarks_mm: FloatArray

    def to_film(self, points: Any) -> FloatArray:
        """Body frame (u, v) in template mm -> film (x, y) in mm."""
        return _to_film(np.asarray(points, dtype=np.float64), self.shape, self.origin_mm)

    def project(self, points: Any) -> FloatArray:
        """Template points (u, v, z) of the trunk -> film (x, y) in mm, through tilt and rotation."""
        return self.to_film(_project(np.asarray(points, dtype=np.float64), self.shape))


def build_pelvis(shape: PelvisShape, origin_mm: tuple[float, float]) -> Pelvis:
    """Outlines and landmarks of a pelvis on the film.

    Args:
        shape: the pelvis.
        origin_mm: film (x, y) of the point midway between the femoral heads.

    Returns:
        The pelvis in the film plane.
    """
    hips = {side: _build_hip(side, shape, origin_mm) for side in _SIDES}
    both = np.vstack([_SACRUM, _SACRUM[-2:0:-1] * (-1, 1, 1)])
    sacrum = Curve(_to_film(_project(both, shape), shape, origin_mm), closed=True)
    paired = [_hip_landmarks(hips[side]) for side in _SIDES]
    joint = _project(np.array([(0.0, 43.0, 45.0)]), shape)
    middle = [sacrum.points[0], _to_film(joint, shape, origin_mm)[0]]
    landmarks = [point for pair in zip(*paired, strict=True) for point in pair] + middle
    return Pelvis(shape, origin_mm, hips, sacrum, np.array(landmarks))


def _project(points: FloatArray, shape: PelvisShape) -> FloatArray:
    """Template (u, v, z) -> (u, v) after sex and proportion changes, tilt about the hips' axis and rotation."""
    u, v, z = points.T.copy()
    below, above = 1 / (1 + np.exp(-(v - 35) / 14)), 1 / (1 + np.exp((v + 80) / 20))
    inlet = np.exp(-(((v + 20) / 45) ** 2))
    u = u * shape.width * (1 + shape.sex * (0.10 * below - 0.035 * above + 0.03 * inlet))
    v = v * shape.height * (1 - 0.05 * shape.sex * below)
    tilt, turn = np.deg2rad([shape.tilt_deg, shape.rotation_deg])
    v, z = v * np.cos(tilt) + z * np.sin(tilt), z * np.cos(tilt) - v * np.sin(tilt)
    return np.stack([u * np.cos(turn) + z * np.sin(turn), v], axis=1)


def _to_film(points: FloatArray, shape: PelvisShape, origin_mm: tuple[float, float]) -> FloatArray:
    angle = np.deg2rad(shape.roll_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(shape.scale * points @ turn.T + np.array(origin_mm))


def _polar(center: FloatArray, radius: float, degrees: Any, side: float) -> FloatArray:
    """Points around a femoral head; 0 degrees is up, positive angles go outwards."""
    angle = np.deg2rad(np.asarray(degrees, dtype=np.float64))
    return center + radius * np.stack([side * np.sin(angle), -np.cos(angle)], axis=-1)


def _build_hip(side: str, shape: PelvisShape, origin_mm: tuple[float, float]) -> Hip:
    sign = _SIDES[side]
    own: HipShape = getattr(shape, side)
    mirror = np.array([sign, 1.0, 1.0])

    def film(points: FloatArray) -> FloatArray:
        """Points of the pelvis on the film."""
        return _to_film(points, shape, origin_mm)

    def vector(direction: FloatArray) -> FloatArray:
        """A direction in the pelvis as it lies on the film."""
        return (film(direction) - film(np.zeros(2))) / shape.scale

    def trunk(points: Any) -> FloatArray:
        """Points in space, given for the right half, projected for this side."""
        return _project(np.asarray(points, dtype=np.float64) * mirror, shape)

    head = trunk([_HEAD])[0]
    socket = own.head_mm + own.joint_space_mm
    edge = _polar(head, socket, own.cover_deg, sign)
    # The wall behind the head starts at the edge and leaves the socket for the ischium.
    beside = np.array([(5.0, -19.0), (3.0, -9.0), (0.0, 0.0), (2.5, 10.0), (0.5, 24.0)]) * mirror[:2] + edge
    outline = np.vstack([trunk(_ILIUM), beside, trunk(_ISCHIUM)])
    teardrop = trunk([(62.0, 17.5, 5.0)])[0]
    lines = {
        "sclerosis": _polar(head, socket + 3.0, np.linspace(-34, own.cover_deg - 7, 7), sign),
        "roof": _polar(head, socket, np.linspace(-38, own.cover_deg, 9), sign),
        "teardrop": teardrop
        + np.array([(5, -17), (4.6, -8), (3, -2), (0, 0), (-3, -3), (-4, -10), (-3.5, -20)]) * mirror[:2],
        "floor": _polar(head, socket + 0.5, np.linspace(-105, -38, 7), sign),
        "front_wall": np.vstack([edge, _polar(head, 0.55 * own.head_mm, [20.0, -50.0], sign), teardrop]),
        "back_wall": np.vstack([edge, _polar(head, 0.72 * own.head_mm, [75.0, 125.0], sign), trunk([(82.0, 30, -28)])]),
        "inner_rim": trunk(_ILIUM[3:10]),
        "ilioischial": trunk(
            [(55, -44, -20), (58, -22, -25), (60, 0, -28), (61, 20, -30), (63, 40, -32), (66, 60, -32)]
        ),
        "crest": trunk(_ILIUM[13:20]),
        "joint_front": trunk([(51, -104, -45), (54, -92, -45), (52, -77, -50), (44, -64, -58), (37, -58, -62)]),
        "joint_back": trunk([(43, -106, -60), (46, -92, -62), (44, -78, -66), (38, -66, -70)]),
    }
    axis, cross, outline_femur = _femur(own, sign)
    neck = np.deg2rad(180 - own.neck_shaft_deg)
    intersection = head + own.neck_mm * (np.sin(neck) * cross + np.cos(neck) * axis)
    return Hip(
        outline=Curve(film(outline), closed=True),
        foramen=Curve(film(trunk(_FORAMEN)), closed=True),
        femur=Curve(film(intersection + outline_femur), closed=True),
        head=film(head),
        head_mm=own.head_mm * shape.scale,
        lines={name: film(points) for name, points in lines.items()},
        lateral=vector(np.array([sign, 0.0])),
        down=vector(np.array([0.0, 1.0])),
        axis=vector(axis),
        intersection=film(intersection),
        scale=shape.scale,
        shape=own,
    )


def _femur(own: HipShape, sign: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Directions down the shaft and outwards; the outline around the point where the axes of neck and shaft meet."""
    tilt = np.deg2rad(own.abduction_deg)
    axis, cross = np.array([sign * np.sin(tilt), np.cos(tilt)]), np.array([sign * np.cos(tilt), -np.sin(tilt)])
    neck = np.deg2rad(180 - own.neck_shaft_deg)
    up, under = np.array([-np.sin(neck), -np.cos(neck)]), np.array([-np.cos(neck), np.sin(neck)])
    thick, deep = 0.68 * own.head_mm, own.neck_mm
    neck_points = [
        *[(0.40 * deep, 1.08), (0.68 * deep, 0.95), (0.92 * deep, 0.72), (1.06 * deep, 0.25), (1.06 * deep, -0.25)],
        *[(0.90 * deep, -0.74), (0.62 * deep, -0.88), (0.37 * deep, -0.93)],
    ]
    around_neck = [along * up + thick * across * under for along, across in neck_points]
    out, high = own.lesser_mm, own.greater_mm
    inner = [(-16, 340), (-15.5, 250), (-15.5, 160), (-15.5, 100), (-16.5, 72), (-18 - 0.35 * out, 56)]
    inner += [(-18 - 0.95 * out, 43), (-18 - out, 35), (-19.5 - 0.45 * out, 25)]
    outer = [(2.0, -21 - 0.3 * high), (6.5, -25 - 0.8 * high), (12, -28.5 - high), (18.5, -27.5 - 0.9 * high)]
    outer += [(24, -19), (27, -5), (26, 11), (21.5, 33), (17, 62), (15.8, 100), (16, 160), (16, 250), (16, 340)]
    local = np.array([*inner, *around_neck, *outer], dtype=float)
    return axis, cross, local[:, :1] * cross + local[:, 1:] * axis


def _hip_landmarks(hip: Hip) -> list[FloatArray]:
    """The ten landmarks of one side, in the order of ``_PAIRED``; directions follow the body, not the film."""
    rim = len(_ILIUM)
    cross = np.array([hip.axis[1], -hip.axis[0]])
    cross *= np.sign(hip.lateral @ cross)
    level = hip.intersection + _SHAFT_LEVEL_MM * hip.scale * hip.axis
    last = hip.femur.end - 1
    shaft = [hip.femur.crossing(level, hip.axis, part) for part in ((1, 5), (last - 6, last))]
    return [
        hip.outline.farthest(-hip.down, (11.0, 19.0)),
        hip.outline.farthest(hip.lateral, (17.0, 21.0)),
        hip.outline.points[rim + 2],
        Curve(hip.lines["teardrop"]).farthest(hip.down),
        hip.outline.farthest(hip.down, (rim + 6.0, rim + 15.0)),
        hip.head,
        hip.femur.farthest(-hip.axis, (17.5, 20.5)),
        hip.femur.farthest(-cross, (5.5, 8.0)),
        hip.intersection,
        np.mean(shaft, axis=0),
    ]
