"""The shape guard: gross errors are brought back, everything else stays as decoded."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_landmark.data.geometry import film_affine
from monai_landmark.transforms import DecodeLandmarksd, EncodeHeatmap, LandmarkShape, shape_of_films

SIZE = (96, 80)
MEAN = np.array([[10.0, 12.0], [60.0, 15.0], [35.0, 40.0], [15.0, 80.0], [65.0, 75.0], [40.0, 60.0], [30.0, 25.0]])


def _films(count: int = 12, jitter: float = 1.0, seed: int = 0) -> list[np.ndarray]:
    """The mean shape turned, scaled and shifted, with independent jitter."""
    random = np.random.default_rng(seed)
    films = []
    for _ in range(count):
        angle, scale, shift = random.normal(0, 0.1), random.normal(1, 0.05), random.normal(0, 2, 2)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        films.append(MEAN @ turn.T + shift + random.normal(0, jitter, MEAN.shape))
    return films


def test_residual_is_the_jitter_that_was_put_in() -> None:
    shape = LandmarkShape.fit(_films(300, jitter=1.0))
    assert shape is not None
    # radial RMS of N(0, 1) per axis is sqrt(2); leaving one out of seven adds the alignment's own error
    assert np.all((shape.residual > 1.4) & (shape.residual < 2.2))


def test_expected_places_ignore_a_gross_error() -> None:
    shape = LandmarkShape.fit(_films())
    assert shape is not None
    points = _films(1, jitter=0.0, seed=5)[0]
    false = points.copy()
    false[2] += [40.0, -30.0]
    expected = shape.expected(false)
    assert expected is not None
    assert np.linalg.norm(expected[0] - points, axis=-1).max() < 2.0


def test_films_annotated_alike_give_a_shape_that_still_tells_a_gross_error() -> None:
    shape = LandmarkShape.fit([MEAN] * 3)
    assert shape is not None
    false = MEAN + np.array([[0.0, 0.0]] * 6 + [[30.0, 0.0]])
    places, reach = shape.expected(false) or (None, None)
    assert reach is not None and (reach > 0).all() and np.allclose(places, MEAN, atol=0.1)


def test_missing_landmarks_are_neither_learned_nor_needed() -> None:
    films = _films(40)
    films[0][3] = np.nan
    shape = LandmarkShape.fit(films)
    assert shape is not None and np.isfinite(shape.mean).all()
    points = films[1].copy()
    points[0] = np.nan
    expected = shape.expected(points)
    assert expected is not None and np.linalg.norm(expected[0][0] - films[1][0]) < 6.0


@pytest.mark.parametrize(
    "films", [[], _films(2), [film[:4] for film in _films()], [np.where(np.arange(7)[:, None] == 1, np.nan, MEAN)] * 4]
)
def test_too_little_to_learn_from_gives_no_shape(films: list[np.ndarray]) -> None:
    assert LandmarkShape.fit(films) is None


def test_shape_survives_json_and_per_axis_spacing() -> None:
    spacing = [0.5, 0.25]
    items = [{"landmarks": (film / np.array(spacing[::-1])).tolist(), "spacing": spacing} for film in _films()]
    content = json.loads(json.dumps(shape_of_films(items)))
    direct = LandmarkShape.fit(_films())
    again = LandmarkShape.from_dict(content)
    assert direct is not None and again is not None
    np.testing.assert_allclose(again.mean, direct.mean, atol=1e-9)


def _item(points: np.ndarray, ghost: tuple[int, np.ndarray] | None = None) -> dict[str, object]:
    """Logits with a peak at every point, and for one landmark a higher false peak elsewhere."""
    encode = EncodeHeatmap(sigma_px=1.5, spatial_size=SIZE)
    maps = encode(torch.as_tensor(points, dtype=torch.float32))
    if ghost is not None:
        index, place = ghost
        false = encode(torch.as_tensor(place, dtype=torch.float32)[None])[0]
        maps[index] = 0.6 * maps[index] + false
    logits = (maps + 1e-6).log()
    return {"image": MetaTensor(torch.zeros(1, *SIZE), affine=torch.as_tensor(film_affine((1.0, 1.0)))), "pred": logits}


def test_a_false_peak_gives_way_to_the_one_near_the_shape() -> None:
    shape = shape_of_films([{"landmarks": film.tolist(), "spacing": None} for film in _films()])
    item = _item(MEAN, ghost=(2, np.array([75.0, 5.0])))
    trusting = DecodeLandmarksd(shape=None)(item)
    guarded = DecodeLandmarksd(shape=shape)(item)
    assert np.linalg.norm(trusting["pred"][2].numpy() - MEAN[2]) > 40
    assert np.linalg.norm(guarded["pred"].numpy() - MEAN, axis=-1).max() < 0.5
    # the map itself still doubts: its own mass near the new place is what is reported
    assert 0.2 < float(guarded["confidence"][2]) < 0.5 < float(guarded["confidence"][0])


def test_landmarks_that_fit_stay_exactly_as_decoded() -> None:
    shape = shape_of_films([{"landmarks": film.tolist(), "spacing": None} for film in _films()])
    item = _item(_films(1, jitter=1.5, seed=9)[0])
    assert torch.equal(DecodeLandmarksd(shape=shape)(item)["pred"], DecodeLandmarksd(shape=None)(item)["pred"])


def test_a_landmark_taken_for_its_mirror_image_is_told_by_the_others() -> None:
    """Two of seven at each other's place, each with a lower peak at its own: neither is beyond the gate by much."""
    shape = shape_of_films([{"landmarks": film.tolist(), "spacing": None} for film in _films(jitter=6.0)])
    item = _item(MEAN, ghost=(0, MEAN[1]))
    item["pred"][1] = _item(MEAN, ghost=(1, MEAN[0]))["pred"][1]
    trusting, guarded = (DecodeLandmarksd(shape=known)(item) for known in (None, shape))
    assert np.linalg.norm(trusting["pred"][:2].numpy() - MEAN[:2], axis=-1).min() > 45
    assert np.linalg.norm(guarded["pred"].numpy() - MEAN, axis=-1).max() < 0.5
    assert (guarded["confidence"][:2] < 0.5).all() and (guarded["expected_error"][:2] > 20).all()


def test_the_best_explanation_is_found() -> None:
    """Held against every choice of candidates, each aligned by least squares."""
    shape = LandmarkShape.fit(_films(40))
    assert shape is not None
    random = np.random.default_rng(3)
    truth = _films(1, jitter=0.5, seed=11)[0]
    candidates = random.uniform(0, 80, (7, 2, 2))
    own = random.integers(0, 2, 7)
    candidates[np.arange(7), own] = truth
    fit = shape.explain(candidates, np.log(random.uniform(0.1, 0.9, (7, 2))))
    assert fit is not None
    np.testing.assert_array_equal(fit.chosen, own)
    assert np.linalg.norm(fit.places - truth, axis=-1).max() < 6.0

    def misfit(choice: tuple[int, ...]) -> float:
        points = candidates[np.arange(7), list(choice)]
        source = np.stack([MEAN[:, 0], MEAN[:, 1]], -1) - MEAN.mean(0)
        z, w = source @ np.array([1, 1j]), (points - points.mean(0)) @ np.array([1, 1j])
        return float(np.abs(w - (np.conj(z) * w).sum() / (np.abs(z) ** 2).sum() * z).sum())

    assert min(itertools.product((0, 1), repeat=7), key=misfit) == tuple(own)


def test_no_candidate_no_explanation() -> None:
    shape = LandmarkShape.fit(_films())
    assert shape is not None
    shares = np.zeros((7, 1))
    shares[:2] = -np.inf
    points = _films(1, jitter=0.0, seed=5)[0]
    fit = shape.explain(points[:, None], shares)
    assert fit is not None and np.linalg.norm(fit.places - points, axis=-1).max() < 3.0
    shares[2] = np.nan
    assert shape.explain(points[:, None], shares) is None
    assert shape.explain(np.zeros((7, 1, 2)), np.zeros((7, 1))) is None


def test_maps_without_a_peak_stay_without_a_point() -> None:
    shape = shape_of_films([{"landmarks": film.tolist(), "spacing": None} for film in _films()])
    item = _item(MEAN)
    item["pred"][4] = torch.nan
    found = DecodeLandmarksd(shape=shape)(item)["pred"]
    assert found[4].isnan().all() and np.linalg.norm(np.delete(found.numpy() - MEAN, 4, 0), axis=-1).max() < 0.5
