"""The population of pelves: a few numbers that make one person differ from another and the left side from the right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .synthetic_curves import FloatArray

__all__ = ["HipShape", "PelvisShape", "draw_shape"]


@dataclass(frozen=True)
class HipShape:
    """What makes one hip differ from the other: angles in degrees, lengths in mm."""

    neck_shaft_deg: float
    neck_mm: float
    head_mm: float
    cover_deg: float
    joint_space_mm: float
    abduction_deg: float
    lesser_mm: float
    greater_mm: float


@dataclass(frozen=True)
class PelvisShape:
    """The few numbers from which a pelvis is built; ``sex`` runs from -1 (male form) to 1 (female), ``age`` 0 to 1."""

    scale: float
    width: float
    height: float
    sex: float
    age: float
    roll_deg: float
    tilt_deg: float
    rotation_deg: float
    right: HipShape
    left: HipShape


def draw_shape(random: np.random.Generator) -> PelvisShape:
    """Draw a pelvis from the population.

    Args:
        random: source of chance; the same state gives the same pelvis.

    Returns:
        The shape.
    """
    sex = float(np.clip(random.normal(0.0, 0.6), -1, 1))
    common = random.normal(size=8)
    sides = [_draw_hip(0.85 * common + 0.5 * random.normal(size=8), sex) for _ in range(2)]
    scale, width, height, roll, tilt, turn = np.clip(random.normal(size=6), -2, 2)
    return PelvisShape(
        scale=float(1.0 - 0.03 * sex + 0.04 * scale),
        width=float(1.0 + 0.03 * width),
        height=float(1.0 - 0.03 * sex + 0.03 * height),
        sex=sex,
        age=float(random.uniform()),
        roll_deg=float(1.8 * roll),
        tilt_deg=float(5.0 * tilt),
        rotation_deg=float(2.2 * turn),
        right=sides[0],
        left=sides[1],
    )


def _draw_hip(normal: FloatArray, sex: float) -> HipShape:
    deviate = np.clip(normal, -2.2, 2.2)
    return HipShape(
        neck_shaft_deg=float(128 + 4.5 * deviate[0]),
        neck_mm=float(50 - 2 * sex + 3 * deviate[1]),
        head_mm=float(24.5 - 1.6 * sex + 0.9 * deviate[2]),
        cover_deg=float(34 + 5 * deviate[3]),
        joint_space_mm=float(4.3 + 0.6 * deviate[4]),
        abduction_deg=float(-2 + 3 * deviate[5]),
        lesser_mm=float(7.5 + 2.2 * deviate[6]),
        greater_mm=float(2.5 * deviate[7]),
    )
