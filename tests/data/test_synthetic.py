"""Synthetic films: landmarks against the rendered bones by independent methods, films against physics, the data set."""

from __future__ import annotations

import json
from pathlib import Path

import contourpy
import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from PIL import Image
from scipy.ndimage import map_coordinates

from monai_landmark.data.datalist import landmarks_array, load_datalist
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.data.synthetic import (
    LANDMARK_NAMES,
    _scene,
    render_layers,
    synthesize_film,
    write_synthetic_dataset,
)
from monai_landmark.data.synthetic_curves import Curve, Grid, draw_ridges, signed_distance
from monai_landmark.errors import ConfigurationError, FilmError

SIZE = (400, 320)
SMALL = (224, 224)
FIELD_MM = (448.0, 358.4)
SIDES = ("right", "left")


def named(points, name):
    return points[LANDMARK_NAMES.index(name)]


def at_pitch(seed, pitch_mm):
    """Noise-free bones and the truth of one field at one resolution."""
    size = tuple(round(mm / pitch_mm) for mm in FIELD_MM)
    scene = _scene(seed, size, (pitch_mm, pitch_mm))
    return render_layers(seed, size, (pitch_mm, pitch_mm)), scene.pelvis


def edge_of(layer, pitch_mm, level):
    """Outlines of a bone as marching squares sees them, (N, 2) in mm."""
    return np.vstack(contourpy.contour_generator(z=layer).lines(level)) * pitch_mm


def level_at_edge(half_mm, pitch_mm):
    """Thickness where a rounded solid ends; its edge is softened over 0.6 pixels so that it does not alias."""
    return 2 * np.sqrt(2 * half_mm * 0.3 * pitch_mm)


def fitted_circle(points):
    """Algebraic least-squares circle: x^2 + y^2 = 2 a x + 2 b y + c."""
    system = np.column_stack([2 * points, np.ones(len(points))])
    a, b, c = np.linalg.lstsq(system, (points**2).sum(1), rcond=None)[0]
    return np.array([a, b]), np.sqrt(c + a * a + b * b)


def extreme_point(edge, direction, near, reach_mm=14.0):
    """Vertex of a parabola through the outermost stretch of an edge near a rough place."""
    across = np.array([-direction[1], direction[0]])
    local = (edge - near)[np.hypot(*(edge - near).T) < reach_mm]
    height, side = local @ direction, local @ across
    top = side[np.argmax(height)]
    close = np.abs(side - top) < 2.5
    close &= height > height.max() - 1.5
    c, b, a = np.polyfit(side[close] - top, height[close], 2)
    assert c < 0
    place = np.clip(-b / (2 * c), -1.5, 1.5)
    return near + direction * (a + b * place + c * place**2) + across * (top + place)


@pytest.fixture(scope="module", params=[(3, 0.6), (3, 0.35), (11, 0.5)], ids=str)
def rendered(request):
    seed, pitch = request.param
    return (*at_pitch(seed, pitch), pitch)


@pytest.mark.parametrize("side", SIDES)
def test_head_center_is_the_center_of_the_rendered_head(rendered, side):
    layers, pelvis, pitch = rendered
    truth = named(pelvis.landmarks_mm, f"{side}_femoral_head")
    edge = edge_of(layers[f"femur_{side}"], pitch, level_at_edge(24, pitch))
    inwards = 1.0 if side == "right" else -1.0
    rough = truth + np.array([2.0, -3.0])
    away = edge - rough
    arc = (np.hypot(*away.T) < 33) & (away @ (0.8 * inwards, -0.6) > 0.55 * np.hypot(*away.T))
    center, radius = fitted_circle(edge[arc])
    np.testing.assert_allclose(center, truth, atol=0.06)
    assert radius == pytest.approx(pelvis.hips[side].head_mm, abs=0.6 * pitch)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("name", "bone", "half"),
    [
        ("greater_trochanter", "femur", 16.0),
        ("lesser_trochanter", "femur", 13.0),
        ("iliac_crest", "pelvis", 9.0),
        ("anterior_superior_iliac_spine", "pelvis", 7.5),
        ("ischial_tuberosity", "pelvis", 10.5),
    ],
)
def test_tips_are_the_extreme_points_of_the_rendered_bone(rendered, side, name, bone, half):
    layers, pelvis, pitch = rendered
    hip = pelvis.hips[side]
    cross = np.array([hip.axis[1], -hip.axis[0]]) * (1 if side == "left" else -1)
    direction = {
        "greater_trochanter": -hip.axis,
        "lesser_trochanter": -cross,
        "iliac_crest": -hip.down,
        "anterior_superior_iliac_spine": hip.lateral,
        "ischial_tuberosity": hip.down,
    }[name]
    truth = named(pelvis.landmarks_mm, f"{side}_{name}")
    edge = edge_of(layers[f"{bone}_{side}"], pitch, level_at_edge(half, pitch))
    found = extreme_point(edge, direction, truth + np.array([1.0, -1.5]))
    assert (found - truth) @ direction == pytest.approx(0, abs=0.4 * pitch)
    # On a flat top a little height is much width: the place along it is judged more mildly.
    assert np.hypot(*(found - truth)) < 1.5


@pytest.mark.parametrize("side", SIDES)
def test_shaft_landmark_is_midway_between_the_cortices(rendered, side):
    layers, pelvis, pitch = rendered
    truth, axis = named(pelvis.landmarks_mm, f"{side}_femoral_shaft"), pelvis.hips[side].axis
    steps = np.arange(-25, 25, 0.02)
    line = truth + steps[:, None] * np.array([axis[1], -axis[0]])
    profile = map_coordinates(layers[f"femur_{side}"], line[:, ::-1].T / pitch, order=1)
    inside = steps[profile > level_at_edge(15.5, pitch)]
    assert inside.mean() == pytest.approx(0, abs=0.05)
    assert 24 < np.ptp(inside) < 42


@pytest.mark.parametrize("side", SIDES)
def test_edge_of_the_socket_lies_on_the_outline_and_on_the_socket(rendered, side):
    layers, pelvis, pitch = rendered
    truth, hip = named(pelvis.landmarks_mm, f"{side}_acetabular_edge"), pelvis.hips[side]
    radius = np.hypot(*(truth - hip.head))
    degrees = np.arange(-15, 15, 0.02)
    turn = np.deg2rad(degrees) * (1 if side == "left" else -1)
    x, y = truth - hip.head
    around = hip.head + (radius + 1.0) / radius * np.stack(
        [np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y], 1
    )
    profile = map_coordinates(layers[f"pelvis_{side}"], around[:, ::-1].T / pitch, order=1)
    end = np.deg2rad(degrees[profile > level_at_edge(10, pitch)].max()) * radius
    assert end == pytest.approx(0, abs=1.2)
    joint = np.hypot(*(truth - hip.head)) - hip.head_mm
    assert joint == pytest.approx(hip.shape.joint_space_mm * hip.scale, abs=1e-9)


def test_symphysis_is_midway_between_the_pubic_bones(rendered):
    layers, pelvis, pitch = rendered
    truth = named(pelvis.landmarks_mm, "pubic_symphysis")
    across = np.arange(-12, 12, 0.02)
    line = truth + across[:, None] * pelvis.hips["left"].lateral
    bones = [map_coordinates(layers[f"pelvis_{side}"], line[:, ::-1].T / pitch, order=1) for side in SIDES]
    right, left = (bone > level_at_edge(10, pitch) for bone in bones)
    assert (across[right].max() + across[left].min()) / 2 == pytest.approx(0, abs=0.3)
    assert not (right & left).any()


@pytest.mark.parametrize("seed", range(5))
def test_extremes_of_a_curve_are_exact_to_a_nanometre(seed):
    random = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    curve = Curve(np.stack([np.cos(angle), np.sin(angle)], 1) * random.uniform(20, 40, (12, 1)), closed=True)
    direction = random.normal(size=2)
    dense = curve.at(np.linspace(0, curve.end, 1_000_001)) @ direction
    assert curve.farthest(direction) @ direction == pytest.approx(dense.max(), abs=1e-6)
    assert curve.farthest(direction) @ direction >= dense.max() - 1e-12


@pytest.mark.parametrize("closed", [True, False])
def test_curve_agrees_with_scipy_spline(closed):
    from scipy.interpolate import CubicSpline

    points = np.random.default_rng(1).normal(size=(9, 2))
    knots = np.vstack([points, points[:1]]) if closed else points
    peer = CubicSpline(np.arange(len(knots)), knots, bc_type="periodic" if closed else "natural")
    places = np.linspace(0, len(knots) - 1, 500)
    np.testing.assert_allclose(Curve(points, closed).at(places), peer(places), atol=1e-12)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 0.9)])
def test_signed_distance_of_a_circle(spacing):
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    for direction in (1, -1):
        circle = Curve(np.stack([40 + 20 * np.cos(angle), 35 + 20 * np.sin(direction * angle)], 1), closed=True)
        grid = Grid((90, 100), spacing)
        distance = signed_distance(circle, grid)
        truth = 20 - np.hypot(grid.x - 40, grid.y - 35)
        np.testing.assert_allclose(distance, truth, atol=0.4)
        near = np.abs(truth) < min(spacing)
        np.testing.assert_allclose(distance[near], truth[near], atol=0.05)


def test_ridge_has_its_height_and_place_whatever_the_raster():
    for spacing in ((0.5, 0.5), (0.4, 0.7)):
        grid = Grid((120, 120), spacing)
        ridge = draw_ridges(grid, [(np.array([(5.0, 10.3), (25.0, 10.3), (45.0, 10.3)]), np.array([3.0, 3.0]))], 1.0)
        profile = ridge[:, 60 if spacing[1] == 0.5 else 40]
        assert profile.max() == pytest.approx(3.0, rel=0.06)
        assert profile.sum() * spacing[0] == pytest.approx(3.0 * np.sqrt(2 * np.pi), rel=0.01)
        rows = np.arange(len(profile)) * spacing[0]
        assert (profile * rows).sum() / profile.sum() == pytest.approx(10.3, abs=0.01)


def test_films_repeat_and_differ():
    first, again, other = synthesize_film(5, SIZE), synthesize_film(5, SIZE), synthesize_film(6, SIZE)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(first.landmarks_mm, again.landmarks_mm)
    assert first.spacing_mm == again.spacing_mm
    assert np.nanmax(np.abs(first.landmarks_mm - other.landmarks_mm)) > 3


def test_random_numbers_of_others_do_not_matter():
    np.random.seed(1)  # noqa: NPY002 - the global state is what must not matter
    first = synthesize_film(8, SIZE).pixels
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(first, synthesize_film(8, SIZE).pixels)


@pytest.mark.parametrize("seed", range(2))
def test_film_is_a_plausible_film(seed):
    film = synthesize_film(seed, SIZE)
    assert film.pixels.shape == SIZE and film.pixels.dtype == np.uint16
    assert film.landmarks_mm.shape == (len(LANDMARK_NAMES), 2)
    assert all(0.4 < mm < 2.0 for mm in film.spacing_mm)
    assert film.pixels.std() > 0.1 * 65535
    assert np.isfinite(film.landmarks_mm).all(1).mean() >= 0.8
    # Bright = dense: the cortex of the shaft is brighter than the thigh between the shafts.
    shaft = [named(film.landmarks_px, f"{side}_femoral_shaft") for side in SIDES]
    if np.isfinite(shaft).all():
        middle = np.mean(shaft, axis=0)
        row = film.pixels[round(middle[1])].astype(float)
        assert max(row[round(p[0]) - 15 : round(p[0]) + 15].max() for p in shaft) > 2 * row[round(middle[0])]


def test_marker_stands_on_its_own_side_of_the_patient():
    for seed in range(3):
        scene = _scene(seed, SIZE, None)
        right, left = (named(scene.pelvis.landmarks_mm, f"{side}_femoral_head")[0] for side in SIDES)
        assert right < left
        x, y = scene.exposure.marker_mm
        assert (x > (right + left) / 2) == (scene.exposure.marker == "L")
        film = synthesize_film(seed, SIZE)
        row, col = round(y / film.spacing_mm[0]), round(x / film.spacing_mm[1])
        patch = film.pixels[max(row - 12, 0) : row + 12, max(col - 9, 0) : col + 9]
        assert patch.max() > 0.9 * 65535
        assert film.marker == scene.exposure.marker


def test_landmark_outside_the_exposed_field_is_not_annotated():
    missing = 0
    for seed in range(40):
        scene = _scene(seed, SIZE, None)
        truth = scene.pelvis.landmarks_mm
        left, top, right, bottom = scene.exposure.field_mm
        angle = np.deg2rad(scene.exposure.field_deg)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        middle = np.array([left + right, top + bottom]) / 2
        local = (truth - middle) @ turn.T
        dark = (np.abs(local) >= np.array([right - left, bottom - top]) / 2).any(1)
        end = (np.array(SIZE)[::-1] - 1) * scene.grid.spacing_mm[::-1]
        dark |= ((truth < 0) | (truth > end)).any(1)
        if dark.any() and missing < 1:
            film = synthesize_film(seed, SIZE)
            np.testing.assert_array_equal(np.isnan(film.landmarks_mm).all(1), dark)
            missing += 1
    assert missing >= 1


def test_angles_are_those_of_people():
    schema = LandmarkSchema.load("synthetic")
    assert schema.landmarks == LANDMARK_NAMES
    measures = [schema.measure(_scene(seed, SIZE, None).pelvis.landmarks_mm) for seed in range(30)]
    for name, low, high in (("neck_shaft_angle", 112, 145), ("sharp_angle", 25, 52)):
        values = np.array([m[f"{side}_{name}"] for m in measures for side in SIDES])
        assert low < values.min() and values.max() < high and values.std() > 1.5
    assert max(m["leg_inclination"] for m in measures) < 10


def test_left_and_right_change_places_in_a_mirrored_film():
    schema = LandmarkSchema.load("synthetic")
    points = _scene(2, SIZE, None).pelvis.landmarks_mm
    mirrored = (points * (-1, 1))[schema.flip_permutation()]
    for name in ("femoral_head", "iliac_crest"):
        assert named(mirrored, f"right_{name}")[0] < named(mirrored, f"left_{name}")[0]


def test_given_spacing_is_kept_and_impossible_sizes_are_refused():
    assert synthesize_film(1, (220, 230), (1.5, 1.4)).spacing_mm == (1.5, 1.4)
    with pytest.raises(ConfigurationError, match="too small"):
        synthesize_film(1, (128, 128))
    with pytest.raises(FilmError, match="spacing_mm"):
        synthesize_film(1, SIZE, (0.0, 0.7))


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (16, np.uint16)])
def test_data_set_reads_back(tmp_path: Path, bits, dtype):
    path = write_synthetic_dataset(tmp_path, training=1, test=1, unlabelled=1, size=SMALL, bits=bits)
    content = json.loads(path.read_text())
    assert content["schema"] == "synthetic"
    assert [len(content[section]) for section in ("training", "test", "unlabelled")] == [1, 1, 1]
    assert "landmarks" not in content["unlabelled"][0]
    for item in load_datalist(path, "training"):
        with Image.open(item["image"]) as image:
            pixels = np.asarray(image)
        assert pixels.dtype == dtype and list(pixels.shape) == item["size"]
        assert item["spacing_source"] == "user" and item["patient"] == item["id"]
        seen = np.isfinite(landmarks_array(item)).all(1)
        np.testing.assert_array_equal(np.where(seen, 2, 0), item["visibility"])
    monai_items = load_decathlon_datalist(path, False, "test", base_dir=path.parent)
    assert Path(monai_items[0]["image"]).is_file()


def test_data_set_holds_the_landmarks_of_its_films(tmp_path: Path):
    folders = [tmp_path / "first", tmp_path / "second"]
    paths = [write_synthetic_dataset(f, training=1, test=0, unlabelled=0, seed=4, size=SMALL) for f in folders]
    assert paths[0].read_text() == paths[1].read_text()
    item = load_datalist(paths[0], "training")[0]
    film = synthesize_film(int(np.random.SeedSequence((4, 1)).generate_state(1)[0]), SMALL)
    expected = film.landmarks_mm / np.array(film.spacing_mm)[::-1]
    np.testing.assert_allclose(landmarks_array(item), expected, atol=1e-4)
    np.testing.assert_allclose(item["spacing"], film.spacing_mm)
