"""Detectors without training, on films made by code: moved copies, where the truth is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from monai_landmark.data.datalist import load_datalist
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.data.synthetic import write_synthetic_dataset
from monai_landmark.errors import AnnotationError, ConfigurationError
from monai_landmark.networks import EncoderLandmarkUNet, FrozenFeatures
from monai_landmark.results.pseudo_labels import pseudo_labeled_films
from monai_landmark.study.baselines import BASELINES, baseline_results
from monai_landmark.study.dense_matching import DenseMatcher, Template, _believable, matching_levels, similarity_maps
from monai_landmark.study.frozen_films import FilmReader, FilmVectors, pooled_vector
from monai_landmark.study.measure import main as measure
from monai_landmark.transforms import LandmarkShape

SIZE, SPACING = (96, 80), (0.5, 0.5)
SCHEMA = LandmarkSchema("six", "six places", tuple("abcdef"))
POINTS = np.array([[25, 30], [52.5, 28], [40, 47.25], [24, 66], [55, 64], [41, 75]], dtype=float)
MOVED = np.array([8.0, -6.0])

Item = dict[str, Any]
MakeFilm = Callable[..., Item]


def picture(seed: int = 0) -> NDArray[np.float64]:
    """Blobs of several sizes on a field larger than the film."""
    noise = np.random.default_rng(seed).normal(size=(3, SIZE[0] + 40, SIZE[1] + 40))
    return np.sum([gaussian_filter(layer, sigma) * sigma for layer, sigma in zip(noise, (2, 4, 8), strict=True)], 0)


@pytest.fixture
def film(tmp_path: Path) -> MakeFilm:
    """Writes the part of a picture that begins at (20, 20) less a shift, and gives its item."""

    def make(name: str, seed: int = 0, moved: Any = (0, 0), zoom: int = 1, **changes: Any) -> Item:
        x, y = (20 - int(step) for step in moved)
        part = picture(seed)[y : y + SIZE[0], x : x + SIZE[1]]
        part = np.kron(part, np.ones((zoom, zoom)))
        pixels = np.interp(part, (part.min(), part.max()), (0, 255)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        landmarks = (POINTS + moved + 0.5) * zoom - 0.5
        item = {"image": str(tmp_path / f"{name}.png"), "id": name, "size": list(pixels.shape)}
        spacing = [step / zoom for step in SPACING]
        return {**item, "landmarks": landmarks.tolist(), "spacing": spacing, "spacing_source": "user", **changes}

    return make


@pytest.fixture(scope="module")
def network() -> FrozenFeatures:
    torch.manual_seed(0)
    unet = EncoderLandmarkUNet(6, "test_efficientnet", decoder_channels=(8, 8, 8, 8, 8))
    return FrozenFeatures(unet, levels=("encoder_2", "encoder_4"))  # deeper ones mean nothing untrained


def distances(found: NDArray[np.float64], item: Item) -> NDArray[np.float64]:
    return np.linalg.norm(found - np.array(item["landmarks"]), axis=-1)


class TestMeanShape:
    def test_mean_of_shares_where_annotated(self, film: MakeFilm) -> None:
        nan, one = [np.nan, np.nan], LandmarkSchema("three", "three", ("always", "once", "never"))
        small = film("small", landmarks=[[9.5, 19.5], nan, nan])
        large = film("large", zoom=2, landmarks=[[59.5, 79.5], [39.5, 95.5], nan])
        target = film("target", zoom=3)
        (found,) = baseline_results("mean_shape", [small, large], [target], one)
        # (10 / 80 + 60 / 160) / 2 = 1/4 of 240 columns, (20 / 96 + 80 / 192) / 2 = 5/16 of 288 rows
        np.testing.assert_allclose(found.points_px[:2], [[59.5, 89.5], [59.5, 143.5]])
        assert np.isnan(found.points_px[2]).all() and found.confidence is None
        np.testing.assert_allclose(found.points_mm[0], [59.5 * 0.5 / 3, 89.5 * 0.5 / 3])

    def test_size_is_read_where_the_datalist_does_not_tell_it(self, film: MakeFilm) -> None:
        told = film("film")
        read = {key: value for key, value in told.items() if key != "size"}
        results = [baseline_results("mean_shape", [item], [film("target", zoom=2)], SCHEMA) for item in (told, read)]
        assert results[0] == results[1]


class TestNearestFilm:
    def test_a_moved_copy_is_found_where_the_mean_shape_is_not(self, film: MakeFilm, network: FrozenFeatures) -> None:
        labeled, target = [film("template")], film("target", moved=MOVED)
        found, strange = baseline_results("nearest_film", labeled, [target, film("other", 1)], SCHEMA, network, SIZE)
        (placed,) = baseline_results("mean_shape", labeled, [target], SCHEMA)
        assert distances(found.points_px, target).max() < 1.5
        assert distances(placed.points_px, target).min() > 9.5
        assert found.confidence.mean() > 0.8 > strange.confidence.mean()

    def test_result_is_in_pixels_and_mm_of_the_original_film(self, film: MakeFilm, network: FrozenFeatures) -> None:
        target = film("target", moved=MOVED, zoom=2)
        (found,) = baseline_results("nearest_film", [film("template")], [target], SCHEMA, network, SIZE)
        assert distances(found.points_px, target).max() < 3.0
        assert found.spacing_mm == (0.25, 0.25) and found.original_size == (192, 160)
        np.testing.assert_allclose(found.points_mm, found.points_px * 0.25)

    def test_without_spacing(self, film: MakeFilm, network: FrozenFeatures) -> None:
        none = {"spacing": None, "spacing_source": "none"}
        target = film("target", moved=MOVED, **none)
        (found,) = baseline_results("nearest_film", [film("template", **none)], [target], SCHEMA, network, SIZE)
        assert distances(found.points_px, target).max() < 1.5 and found.points_mm is None

    def test_the_film_that_looks_alike_is_the_template(self, film: MakeFilm, network: FrozenFeatures) -> None:
        target, others = film("target", moved=(4, -4)), [film(f"other{n}", seed=n, moved=(n, n)) for n in (1, 2)]
        labeled = [others[0], film("template"), others[1]]
        (found,) = baseline_results("nearest_film", labeled, [target], SCHEMA, network, SIZE, templates=1)
        assert distances(found.points_px, target).max() < 1.5

    def test_a_landmark_comes_from_the_nearest_film_that_has_it(self, film: MakeFilm, network: FrozenFeatures) -> None:
        nan = [np.nan, np.nan]
        nearest = film("nearest", landmarks=[nan, *POINTS[1:5].tolist(), nan])
        second = film("second", moved=(4, 4))
        second["landmarks"][5] = nan
        target = film("target", moved=(0, -4))
        for templates in (1, 2):
            (found,) = baseline_results(
                "nearest_film", [second, nearest], [target], SCHEMA, network, SIZE, templates=templates
            )
            assert distances(found.points_px, target)[:5].max() < 1.5
            assert np.isnan(found.points_px[5]).all() and found.confidence[5] == 0

    def test_the_answer_does_not_come_from_the_question(self, film: MakeFilm, network: FrozenFeatures) -> None:
        honest, lying = film("honest", moved=MOVED), film("lying", moved=MOVED, landmarks=[[1, 1]] * 6)
        found = baseline_results("nearest_film", [film("template")], [honest, lying], SCHEMA, network, SIZE)
        np.testing.assert_array_equal(found[0].points_px, found[1].points_px)


@pytest.mark.parametrize("baseline", [*BASELINES, "oracle"])
def test_impossible_requests(baseline: str, film: MakeFilm, network: FrozenFeatures) -> None:
    one, two = film("one"), film("two")
    with pytest.raises(ConfigurationError, match=r"own landmarks.*one\.png"):
        baseline_results(baseline, [one], [two, one], SCHEMA, network, SIZE)
    if baseline == "oracle":
        with pytest.raises(ConfigurationError, match="mean_shape"):
            baseline_results(baseline, [one], [two], SCHEMA, network, SIZE)
        return
    with pytest.raises(ConfigurationError, match="no annotated film"):
        baseline_results(baseline, [], [two], SCHEMA, network, SIZE)
    with pytest.raises(AnnotationError, match=r"one\.png.*found: 2"):
        baseline_results(baseline, [{**one, "landmarks": [[1, 1]] * 2}], [two], SCHEMA, network, SIZE)


@pytest.mark.parametrize("changes", [{"network": None}, {"templates": 0}, {"reach": 0}, {"spatial_size": (96,)}])
def test_impossible_settings(changes: Item, film: MakeFilm, network: FrozenFeatures) -> None:
    settings = {"network": network, "spatial_size": SIZE, **changes}
    with pytest.raises(ConfigurationError, match=next(iter(changes))):
        baseline_results("nearest_film", [film("one")], [film("two")], SCHEMA, **settings)


class TestMatching:
    def test_similarity_is_the_cosine_of_every_cell(self) -> None:
        random = np.random.default_rng(0)
        maps, looks = random.normal(size=(5, 3, 4)), random.normal(size=(2, 5))
        cells = torch.nn.functional.normalize(torch.from_numpy(maps), dim=0)
        found = similarity_maps(torch.nn.functional.normalize(torch.from_numpy(looks), dim=1), cells)
        for k, row, col in np.ndindex(2, 3, 4):
            cell = maps[:, row, col]
            cosine = (looks[k] @ cell) / np.sqrt((looks[k] @ looks[k]) * (cell @ cell))
            assert found[k, row, col] == pytest.approx(cosine)

    def test_levels_that_are_too_fine_are_left_out(self) -> None:
        levels = {"fine": torch.randn(3, 320, 256), "good": torch.randn(3, 160, 128), "coarse": torch.randn(3, 80, 64)}
        assert set(matching_levels(levels)) == {"good", "coarse"}
        assert set(matching_levels({"finer": torch.randn(3, 640, 8), "fine": torch.randn(3, 320, 8)})) == {"fine"}

    def test_channels_count_alike_and_cells_have_length_1(self) -> None:
        maps = torch.randn(4, 9, 7)
        scaled = maps * torch.tensor([1.0, 100.0, 0.01, 3.0])[:, None, None] + 7
        found = matching_levels({"one": maps, "other": scaled})
        torch.testing.assert_close(found["one"], found["other"], atol=1e-4, rtol=0)
        torch.testing.assert_close(found["one"].norm(dim=0), torch.ones(9, 7))

    def test_a_landmark_far_from_where_the_others_put_it_goes_there(self) -> None:
        shape = LandmarkShape(POINTS - POINTS.mean(0), np.full(6, 2.0))
        turned = POINTS @ np.array([[0.96, 0.28], [-0.28, 0.96]]) * 1.2 + 30
        false = turned + np.array([[0, 0], [0, 0], [40, 9], [0, 0], [0, 0], [1, 1]])
        found = _believable(torch.from_numpy(false), shape).numpy()
        assert np.linalg.norm(found[2] - turned[2]) < 0.5
        np.testing.assert_array_equal(found[[0, 1, 3, 4, 5]], false[[0, 1, 3, 4, 5]])

    def test_few_landmarks_go_without_shape(self) -> None:
        points = torch.tensor([[1.0, 2], [30, 40]])
        assert _believable(points, LandmarkShape(np.zeros((2, 2)), np.ones(2))) is points

    def test_templates_vote(self, film: MakeFilm, network: FrozenFeatures) -> None:
        """Two templates are the mean of their feature vectors, so their order cannot matter, and one counts alone."""
        read = FilmReader(network, SIZE)
        share = (POINTS + 0.5) / (SIZE[1], SIZE[0])
        one, two = (Template.of(read(film(name, seed)), share) for name, seed in (("one", 0), ("two", 1)))
        target, places = read(film("target", moved=(1, 1))), np.stack([POINTS, POINTS])
        both, swapped = (DenseMatcher(pair, 2, 0.05)(target, places) for pair in ((one, two), (two, one)))
        torch.testing.assert_close(both[0], swapped[0])
        alone = DenseMatcher([two, one], 1, 0.05)(target, places)
        torch.testing.assert_close(alone[0], DenseMatcher([one], 1, 0.05)(target, places[:1])[0])
        assert (alone[0] - both[0]).abs().max() > 0.01


class TestFrozenFilms:
    def test_films_go_through_the_transforms_of_the_evaluation(self, film: MakeFilm, network: FrozenFeatures) -> None:
        item, size = film("film", zoom=2), [64, 96]
        parser = ConfigParser()
        parser.read_config(Path(__file__).parents[2] / "bundles" / "xray_landmarks" / "configs" / "evaluate.yaml")
        parser["spatial_size"] = size
        expected = parser.get_parsed_content("preprocessing")(dict(item))
        found = FilmReader(network, size)(item)
        torch.testing.assert_close(found.image.as_tensor(), expected["image"].as_tensor())
        torch.testing.assert_close(found.image.affine, expected["image"].affine)
        torch.testing.assert_close(found.landmarks_mm, expected["landmarks"])
        assert set(found.levels) == set(network.levels)

    def test_vector_is_the_mean_over_parts_of_the_coarse_levels(self) -> None:
        levels = {"fine": torch.randn(2, 32, 16), "middle": torch.randn(3, 16, 8), "coarse": torch.randn(1, 8, 4)}
        parts = []
        for name, step in (("middle", (4, 2)), ("coarse", (2, 1))):
            values = levels[name].numpy()
            cells = np.array([
                values[c, step[0] * row : step[0] * (row + 1), step[1] * col : step[1] * (col + 1)].mean()
                for c, row, col in np.ndindex(len(values), 4, 4)
            ])  # fmt: skip
            parts.append(cells / np.linalg.norm(cells))
        expected = np.concatenate(parts) / np.sqrt(2)
        np.testing.assert_allclose(pooled_vector(levels), expected, atol=1e-6)

    def test_the_vector_of_a_film_does_not_ask_for_its_landmarks(self, film: MakeFilm, network: FrozenFeatures) -> None:
        item = film("film")
        bare = {key: value for key, value in item.items() if key != "landmarks"}
        np.testing.assert_array_equal(FilmVectors(network, SIZE)(item), FilmVectors(network, SIZE)(bare))
        np.testing.assert_allclose(np.linalg.norm(FilmVectors(network, SIZE)(item)), 1)


def test_films_without_annotations_are_predicted_and_can_be_learned_from(tmp_path: Path) -> None:
    write_synthetic_dataset(tmp_path, training=4, test=1, unlabelled=2, size=(200, 216))
    datalist = tmp_path / "datalist.json"
    words = ["--datalist", str(datalist), "--section", "unlabelled", "--output_dir", str(tmp_path / "found")]
    measure(["mean_shape", *words, "--labels", "3"])
    assert [file.name for file in (tmp_path / "found").iterdir()] == ["predictions.json"]
    films = pseudo_labeled_films(datalist, tmp_path / "found")
    assert [film["id"] for film in films] == [film["id"] for film in load_datalist(datalist, "unlabelled")]
    assert all(np.isfinite(film["landmarks"]).any() for film in films)
