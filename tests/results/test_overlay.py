"""Overlay pictures: right place, true proportions, readable labels, no metadata."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import DataError
from monai_landmark.results.canvas import COLORS, film_canvas, film_to_gray, scale_bar_mm, spacing_text
from monai_landmark.results.labels import place_labels
from monai_landmark.results.overlay import draw_overlay, write_overlay
from monai_landmark.results.result import Guarantee, LandmarkResult

RGB = tuple(int(COLORS["prediction"][i : i + 2], 16) for i in (1, 3, 5))
ORANGE = tuple(int(COLORS["reference"][i : i + 2], 16) for i in (1, 3, 5))


def make_result(points: object, size: tuple[int, int] = (300, 240), **changes: object) -> LandmarkResult:
    points = np.asarray(points, dtype=float)
    names = tuple(f"landmark_{index}" for index in range(len(points)))
    return LandmarkResult("film", size, names, points, **changes)  # type: ignore[arg-type]


def centroid(picture: Image.Image, color: tuple[int, ...], height: int) -> np.ndarray:
    """(x, y) of the middle of the pixels that have nearly this color, above the strip; top-left corner at 0."""
    pixels = np.asarray(picture.convert("RGB"), dtype=int)[:height]
    rows, columns = np.nonzero(np.abs(pixels - color).max(axis=2) < 40)
    assert len(rows) > 10, "nothing was drawn in this color"
    return np.array([(columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2])


@pytest.mark.parametrize(
    ("size", "spacing"), [((300, 240), None), ((300, 240), (0.2, 0.1)), ((1200, 967), (0.1, 0.1)), ((50, 90), None)]
)
def test_ring_and_cross_lie_where_they_should(size: tuple[int, int], spacing: tuple[float, float] | None) -> None:
    point, reference = np.array([[size[1] * 0.5, size[0] * 0.25]]), np.array([[size[1] * 0.5, size[0] * 0.7]])
    source = "none" if spacing is None else "user"
    result = make_result(point, size, spacing_mm=spacing, spacing_source=source)
    film = np.zeros(size, np.float32)
    picture = draw_overlay(film, result, reference_px=reference, labels=False)
    # Independent of the code under test: the picture's height from its width and the pixel's proportions.
    row_mm, col_mm = spacing or (1.0, 1.0)
    height = picture.width * size[0] * row_mm / (size[1] * col_mm)
    scale = np.array([picture.width / size[1], height / size[0]])
    for color, expected in ((RGB, point[0]), (ORANGE, reference[0])):
        np.testing.assert_allclose(centroid(picture, color, round(height)), (expected + 0.5) * scale, atol=1.5)


def test_regions_have_their_size_in_mm_and_referred_ones_are_dashed() -> None:
    spacing, radius = (0.2, 0.1), 4.0
    promise = Guarantee(0.9, 4.0, 0.1)
    drawn = {}
    for refer in (False, True):
        result = make_result(
            [[120, 150]],
            spacing_mm=spacing,
            spacing_source="user",
            region_radius_mm=[radius],
            refer=[refer],
            guarantee=promise,
        )
        picture = draw_overlay(np.zeros((300, 240), np.float32), result, labels=False)
        height = round(picture.width * 300 * 0.2 / (240 * 0.1))
        pixels = np.asarray(picture, dtype=int)[:height]
        color = ORANGE if refer else RGB
        rows, columns = np.nonzero(np.abs(pixels - color).max(axis=2) < 70)
        per_mm = picture.width / (240 * 0.1)
        assert (columns.max() - columns.min()) / 2 / per_mm == pytest.approx(radius, abs=0.15)
        assert (rows.max() - rows.min()) / 2 / per_mm == pytest.approx(radius, abs=0.15)
        middle = np.array([(rows.max() + rows.min()) / 2, (columns.max() + columns.min()) / 2])
        angles = np.degrees(np.arctan2(rows - middle[0], columns - middle[1]))
        far = np.hypot(rows - middle[0], columns - middle[1]) > 0.9 * radius * per_mm
        drawn[refer] = len(np.unique(np.round(angles[far])))
    assert drawn[False] > 300
    assert 150 < drawn[True] < 300  # a ring with gaps


def test_small_films_are_magnified_and_large_ones_shrunk() -> None:
    small = draw_overlay(np.zeros((100, 80)), make_result([[1, 1]], (100, 80)))
    large = draw_overlay(np.zeros((2000, 1500), np.float32), make_result([[1, 1]], (2000, 1500)))
    assert small.width == 320
    assert large.width == 1200


def test_png_holds_pixels_alone(tmp_path) -> None:
    path = write_overlay(tmp_path / "new" / "film.png", np.zeros((60, 50)), make_result([[5, 5]], (60, 50)))
    data = path.read_bytes()
    chunks, at = [], 8
    while at < len(data):
        chunks.append(data[at + 4 : at + 8])
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}


def test_not_found_and_all_missing_landmarks_draw() -> None:
    result = make_result([[np.nan, np.nan], [np.nan, np.nan]])
    reference = np.array([[10.0, 10.0], [np.nan, np.nan]])
    picture = draw_overlay(np.full((300, 240), np.nan), result, reference_px=reference)
    assert picture.width == 800


def test_lines_of_the_schema_are_drawn() -> None:
    schema = LandmarkSchema("two", "Two", ("landmark_0", "landmark_1"), lines={"axis": ("landmark_0", "landmark_1")})
    result = make_result([[20, 150], [220, 150]])
    middle = [
        np.asarray(draw_overlay(np.zeros((300, 240)), result, lines, labels=False))[490:513, 400].max()
        for lines in (schema, None)
    ]
    assert middle[0] > 40
    assert middle[1] == 0


def test_a_film_of_another_size_is_refused() -> None:
    with pytest.raises(DataError, match="size"):
        draw_overlay(np.zeros((10, 10)), make_result([[1, 1]]))


@pytest.mark.parametrize("shape", [(3,), (0, 4), (2, 5, 5)])
def test_what_is_no_film_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="single film"):
        film_to_gray(np.zeros(shape))


def test_gray_is_bright_where_dense_and_ignores_outliers() -> None:
    film = np.linspace(0, 1, 10_000).reshape(100, 100)
    film[0, 0], film[0, 1] = 1e9, np.nan
    gray = film_to_gray(film)
    assert gray[0, 1] == 0
    assert gray[0, 0] == 255
    assert abs(int(gray[50, 0]) - 127) < 4
    assert np.all(film_to_gray(np.full((4, 4), 7.0)) == 0)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("seed", range(5))
def test_labels_cover_neither_each_other_nor_a_point(seed: int) -> None:
    random = np.random.default_rng(seed)
    points = np.concatenate([random.normal(500, 30, (12, 2)), random.uniform(0, 1000, (25, 2)), [[np.nan, np.nan]]])
    boxes = place_labels(points, [(120.0, 18.0)] * len(points), (1000.0, 1000.0), 7.0)
    assert boxes[-1] is None
    placed = [box for box in boxes if box is not None]
    assert len(placed) >= 36
    for index, box in enumerate(placed):
        assert not any(_overlap(box, other) for other in placed[:index])
        assert box[0] >= 0
        assert box[3] <= 1000
        assert not any(_overlap(box, (x - 6.9, y - 6.9, x + 6.9, y + 6.9)) for x, y in points[:-1])


def test_scale_bar_is_a_true_round_length() -> None:
    canvas = film_canvas((1000, 800), (0.2, 0.1), longest=1000)
    bar = scale_bar_mm(canvas, (0.2, 0.1))
    assert bar is not None
    assert bar[0] == 20
    assert bar[1] == pytest.approx(20 / 80 * canvas.width)
    assert scale_bar_mm(canvas, None) is None


def test_spacing_text_says_where_the_spacing_comes_from() -> None:
    assert "no pixel spacing" in spacing_text(make_result([[1, 1]]))
    detector = make_result([[1, 1]], spacing_mm=(0.1, 0.2), spacing_source="detector")
    assert "0.1 (rows)" in spacing_text(detector)
    assert "not in the patient" in spacing_text(detector)
