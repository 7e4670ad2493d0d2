"""The heatmap codec against closed-form references: encode, decode, and both in a row."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from monai_landmark.errors import ConfigurationError
from monai_landmark.transforms.heatmap import DecodeHeatmap, EncodeHeatmap
from monai_landmark.transforms.heatmapd import (
    DecodeHeatmapd,
    DecodeHeatmapDict,
    EncodeHeatmapD,
    EncodeHeatmapd,
)

LOCAL = ("local_soft_argmax", "quadratic", "dark")
METHODS = (*LOCAL, "expectation", "argmax")


def draw(points, sigma, height, width, truncation=np.inf):
    """Reference: the Gaussian written out pixel by pixel in numpy, float64."""
    rows, cols = np.mgrid[:height, :width].astype(np.float64)
    maps = []
    for x, y in np.asarray(points, dtype=np.float64):
        value = np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
        reach = truncation * sigma
        maps.append(np.where((abs(cols - x) <= reach) & (abs(rows - y) <= reach), value, 0.0))
    return np.stack(maps)


def random_points(count, height, width, margin=0.0, seed=0):
    low, high = np.array([margin, margin]), np.array([width - 1 - margin, height - 1 - margin])
    return np.random.default_rng(seed).uniform(low, high, size=(count, 2))


class TestEncodeHeatmap:
    def test_smoke(self):
        assert EncodeHeatmap(2.0, (8, 12))(torch.tensor([[3.2, 4.7]])).shape == (1, 8, 12)

    @pytest.mark.parametrize("sigma", [0.5, 1.0, 2.7])
    def test_values_match_the_formula(self, sigma):
        points = random_points(6, 30, 40)
        maps = EncodeHeatmap(sigma, (30, 40), dtype=torch.float64, truncation=3.0)(points)
        np.testing.assert_allclose(maps.numpy(), draw(points, sigma, 30, 40, 3.0), atol=1e-12)

    def test_x_is_the_column_and_y_the_row(self):
        heatmap = EncodeHeatmap(1.0, (10, 20))(torch.tensor([[15.0, 4.0]]))[0]
        assert heatmap[4, 15] == 1.0
        assert heatmap.argmax() == 4 * 20 + 15

    def test_batch_equals_single_films(self):
        points = torch.from_numpy(random_points(10, 16, 18)).reshape(2, 5, 2)
        encode = EncodeHeatmap(1.5, (16, 18))
        assert encode(points).shape == (2, 5, 16, 18)
        torch.testing.assert_close(encode(points), torch.stack([encode(points[0]), encode(points[1])]))

    def test_missing_landmarks_give_empty_maps(self):
        nan, inf = float("nan"), float("inf")
        points = torch.tensor([[nan, nan], [3.0, nan], [nan, 3.0], [inf, 3.0], [3.0, 3.0]])
        mass = EncodeHeatmap(1.0, (8, 8))(points).sum((1, 2))
        assert (mass[:4] == 0).all()
        assert mass[4] > 1

    def test_visibility_zero_gives_an_empty_map(self):
        points = torch.full((3, 2), 4.0)
        mass = EncodeHeatmap(1.0, (8, 8))(points, visibility=np.array([0, 1, 2], dtype=np.int8)).sum((1, 2))
        assert mass[0] == 0
        assert mass[1] == mass[2] > 1

    def test_point_outside_shows_its_visible_part_only(self):
        points = np.array([[-2.0, 5.0], [-4.1, 5.0], [5.0, 14.2]])
        maps = EncodeHeatmap(1.0, (10, 10), dtype=torch.float64)(points)
        np.testing.assert_allclose(maps.numpy(), draw(points, 1.0, 10, 10, 4.0), atol=1e-12)
        assert maps[0].sum() > 0
        assert maps[1].sum() == maps[2].sum() == 0

    def test_sum_normalization_also_where_the_border_cuts(self):
        points = torch.tensor([[0.2, 0.3], [5.5, 5.5], [float("nan"), 1.0], [-50.0, 3.0]])
        mass = EncodeHeatmap(2.0, (12, 12), normalize="sum")(points).sum((1, 2))
        torch.testing.assert_close(mass, torch.tensor([1.0, 1.0, 0.0, 0.0]))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_dtype(self, dtype):
        heatmap = EncodeHeatmap(1.0, (8, 8), dtype=dtype)(torch.tensor([[2.5, 3.5]]))
        assert heatmap.dtype == dtype
        np.testing.assert_allclose(heatmap[0].double(), draw([[2.5, 3.5]], 1.0, 8, 8, 4.0)[0], atol=1e-2)

    def test_metatensor_and_integer_points_give_a_plain_tensor(self):
        heatmap = EncodeHeatmap(1.0, (8, 8))(MetaTensor(torch.tensor([[2, 3]])))
        assert type(heatmap) is torch.Tensor
        assert heatmap[0, 3, 2] == 1.0

    def test_size_of_the_call_wins(self):
        assert EncodeHeatmap(1.0, (8, 8))(torch.zeros(1, 2), spatial_size=(4, 6)).shape == (1, 4, 6)

    def test_gradient(self):
        points = torch.tensor([[2.3, 3.1], [4.6, 1.2]], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(EncodeHeatmap(1.3, (6, 7), dtype=torch.float64), (points,))

    @pytest.mark.parametrize(
        "settings",
        [
            {"sigma_px": 0.0},
            {"sigma_px": float("nan")},
            {"sigma_px": 1.0, "truncation": -1.0},
            {"sigma_px": 1.0, "dtype": torch.int32},
            {"sigma_px": 1.0, "normalize": "max"},
        ],
    )
    def test_bad_settings(self, settings):
        with pytest.raises(ConfigurationError, match=next(reversed(settings))):
            EncodeHeatmap(spatial_size=(8, 8), **settings)

    @pytest.mark.parametrize("size", [None, (8,), (8, 0), (8, 8.5)])
    def test_bad_size(self, size):
        with pytest.raises(ConfigurationError, match="spatial_size"):
            EncodeHeatmap(1.0, size)(torch.zeros(1, 2))

    def test_bad_shapes(self):
        encode = EncodeHeatmap(1.0, (8, 8))
        with pytest.raises(ValueError, match="points must be"):
            encode(torch.zeros(3, 3))
        with pytest.raises(ValueError, match="visibility must be"):
            encode(torch.zeros(3, 2), visibility=torch.ones(2))


class TestRoundTrip:
    """The mark: mean below 0.02 px and max below 0.05 px for 10,000 points, sigma 1-4 px."""

    @pytest.mark.parametrize("method", LOCAL)
    def test_ten_thousand_points_up_to_the_border(self, method):
        height, width, decode, errors = 48, 40, DecodeHeatmap(method), []
        for step in range(50):
            points = torch.from_numpy(random_points(200, height, width, seed=step))
            sigma = 1.0 + 3.0 * step / 49
            found = decode(EncodeHeatmap(sigma, (height, width))(points))
            errors.append((found - points).norm(dim=-1))
        error = torch.cat(errors)
        assert len(error) == 10_000
        assert error.mean() < 0.001
        assert error.max() < 0.005

    @pytest.mark.parametrize("method", METHODS)
    def test_maps_drawn_by_the_reference(self, method):
        """Independent encoder, so that an error common to both halves of the codec shows."""
        points = random_points(50, 60, 70, margin=14.0)
        found = DecodeHeatmap(method)(draw(points, 2.5, 60, 70)).numpy()
        if method == "argmax":
            np.testing.assert_array_equal(found, points.round())
        else:
            np.testing.assert_allclose(found, points, atol=1e-3)

    @pytest.mark.parametrize("method", [*LOCAL, "expectation"])
    def test_log_gaussian_as_logits(self, method):
        points = random_points(50, 60, 70, margin=14.0, seed=1)
        logits = np.log(draw(points, 2.0, 60, 70) + 1e-300) + 123.0
        found = DecodeHeatmap(method, from_logits=True)(logits).numpy()
        np.testing.assert_allclose(found, points, atol=1e-3)

    def test_corners(self):
        points = torch.tensor([[0.0, 0.0], [19.0, 0.0], [0.0, 15.0], [19.0, 15.0], [0.49, 14.6]])
        for method in LOCAL:
            found = DecodeHeatmap(method)(EncodeHeatmap(1.5, (16, 20))(points))
            torch.testing.assert_close(found, points, atol=1e-3, rtol=0)

    def test_scale_of_the_map_does_not_matter(self):
        points = torch.from_numpy(random_points(5, 40, 40, margin=10.0)).float()
        maps = EncodeHeatmap(2.0, (40, 40))(points)
        for method in METHODS:
            decode = DecodeHeatmap(method)
            torch.testing.assert_close(decode(maps * 1e-6), decode(maps * 1e6), atol=1e-4, rtol=0)


class TestDecodeHeatmap:
    @pytest.mark.parametrize("method", METHODS)
    def test_shapes_and_batch(self, method):
        maps = torch.rand(2, 3, 12, 14)
        points = DecodeHeatmap(method)(maps)
        assert points.shape == (2, 3, 2)
        torch.testing.assert_close(points[1], DecodeHeatmap(method)(maps[1]))

    @pytest.mark.parametrize("method", LOCAL)
    def test_moving_the_map_moves_the_point(self, method):
        """A lopsided peak, so that no symmetry hides a sign or an axis error."""
        base = np.maximum.reduce(draw([[20.3, 24.6], [22.9, 25.1]], 2.0, 56, 60) * np.array([1.0, 0.7])[:, None, None])
        moved = np.roll(base, (5, 3), axis=(0, 1))
        both = DecodeHeatmap(method)(np.stack([base, moved]))
        torch.testing.assert_close(both[1] - both[0], torch.tensor([3.0, 5.0], dtype=torch.float64))
        assert 20.0 < both[0, 0] < 23.0

    def test_local_soft_argmax_is_the_fixed_point_of_the_windowed_mean(self):
        """Reference: the mean under the moving Gaussian window over the whole map, repeated until it stands still."""
        heatmap = draw([[20.3, 24.6]], 1.5, 50, 50)[0] + 0.6 * draw([[22.4, 25.5]], 1.5, 50, 50)[0]
        rows, cols = np.mgrid[:50, :50]
        x, y = 20.0, 24.0
        for _ in range(200):
            seen = heatmap * np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / (2 * 3.0**2))
            x, y = (cols * seen).sum() / seen.sum(), (rows * seen).sum() / seen.sum()
        np.testing.assert_allclose(DecodeHeatmap("local_soft_argmax")(heatmap[None])[0], [x, y], atol=5e-3)
        assert np.hypot(*(DecodeHeatmap("quadratic")(heatmap[None])[0].numpy() - [x, y])) > 0.1

    def test_many_pixels_beat_five_under_noise(self):
        points = torch.from_numpy(random_points(200, 64, 64, margin=14.0))
        noise = torch.randn(200, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        logits = torch.log(torch.from_numpy(draw(points, 2.0, 64, 64)) + 1e-4) + 0.3 * noise
        error = {
            m: (DecodeHeatmap(m, from_logits=True)(logits) - points).norm(dim=-1).mean().item()
            for m in ("local_soft_argmax", "dark", "quadratic", "argmax")
        }
        assert error["local_soft_argmax"] < error["dark"] < error["quadratic"] < error["argmax"]

    def test_dark_follows_a_slanted_peak_where_axis_parabolas_cannot(self):
        """Independent reference: the maximum of a correlated Gaussian is its mean."""
        rows, cols = np.mgrid[:40, :40].astype(float)
        mean, covariance = np.array([19.4, 20.3]), np.array([[6.0, 4.0], [4.0, 5.0]])
        offset = np.stack([cols, rows], -1) - mean
        heatmap = np.exp(-0.5 * np.einsum("ija,ab,ijb->ij", offset, np.linalg.inv(covariance), offset))[None]
        np.testing.assert_allclose(DecodeHeatmap("dark")(heatmap)[0], mean, atol=2e-3)
        assert np.abs(DecodeHeatmap("quadratic")(heatmap)[0].numpy() - mean).max() > 0.05

    def test_expectation_is_the_mean_position(self):
        heatmap = np.random.default_rng(0).uniform(size=(2, 9, 11))
        rows, cols = np.mgrid[:9, :11]
        expected = [[(cols * m).sum() / m.sum(), (rows * m).sum() / m.sum()] for m in heatmap]
        np.testing.assert_allclose(DecodeHeatmap("expectation")(heatmap), expected)

    def test_distant_clutter_leaves_the_local_methods_alone(self):
        clean = torch.from_numpy(draw([[20.4, 30.7]], 2.0, 64, 64))
        clutter = clean + 0.8 * torch.from_numpy(draw([[52.0, 50.0]], 2.0, 64, 64))
        for method in LOCAL:
            torch.testing.assert_close(DecodeHeatmap(method)(clutter), DecodeHeatmap(method)(clean), atol=1e-4, rtol=0)
        assert (DecodeHeatmap("expectation")(clutter) - DecodeHeatmap("expectation")(clean)).abs().max() > 5

    @pytest.mark.parametrize("method", METHODS)
    def test_map_without_a_peak_gives_nan_and_no_confidence(self, method):
        maps = torch.from_numpy(draw([[10.2, 9.1]] * 5, 2.0, 24, 24))
        maps[0], maps[1, 3, 3], maps[2, 3, 3], maps[3, 3, 3] = 0.0, torch.nan, torch.inf, -torch.inf
        points, confidence = DecodeHeatmap(method).decode_with_confidence(maps)
        assert points[:4].isnan().all()
        assert points[4].isfinite().all()
        assert (confidence[:4] == 0).all()
        assert confidence[4] > 0.5

    @pytest.mark.parametrize("method", METHODS)
    def test_logits_may_rule_pixels_out_but_not_be_nan(self, method):
        logits = torch.from_numpy(np.log(draw([[10.2, 9.1]] * 3, 2.0, 24, 24)))
        logits[0, :, 22:], logits[1, 3, 3], logits[2] = -torch.inf, torch.nan, -torch.inf
        points = DecodeHeatmap(method, from_logits=True)(logits)
        assert points[0].isfinite().all()
        assert points[1:].isnan().all()

    @pytest.mark.parametrize("method", METHODS)
    def test_hot_pixel_and_flat_map_stay_finite(self, method):
        hot = torch.zeros(2, 9, 9)
        hot[0, 4, 6], hot[1, 0, 8] = 1.0, 1.0
        expected = torch.tensor([[6.0, 4.0], [8.0, 0.0]])
        torch.testing.assert_close(DecodeHeatmap(method)(hot), expected)
        assert DecodeHeatmap(method, from_logits=True)(torch.zeros(1, 9, 9)).isfinite().all()

    @pytest.mark.parametrize("method", METHODS)
    def test_extreme_logits_do_not_overflow(self, method):
        logits = 1e4 * torch.randn(3, 20, 20, generator=torch.Generator().manual_seed(0)) + 1e6
        points, confidence = DecodeHeatmap(method, from_logits=True).decode_with_confidence(logits)
        assert points.isfinite().all()
        assert ((confidence >= 0) & (confidence <= 1)).all()

    @pytest.mark.parametrize("method", METHODS)
    def test_half_precision_is_computed_in_float32(self, method):
        logits = torch.from_numpy(np.log(draw([[20.3, 21.6]], 2.0, 44, 44))).to(torch.bfloat16)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            points = DecodeHeatmap(method, from_logits=True)(logits)
        assert points.dtype == torch.float32
        torch.testing.assert_close(points, DecodeHeatmap(method, from_logits=True)(logits.float()))
        assert (points - torch.tensor([[20.3, 21.6]])).abs().max() < 0.75

    @pytest.mark.parametrize("method", [*LOCAL, "expectation"])
    def test_gradient(self, method):
        logits = torch.from_numpy(np.log(draw([[6.3, 5.6], [0.2, 6.7]], 2.0, 12, 13))).requires_grad_()
        decode = DecodeHeatmap(method, from_logits=True, window_px=1.0)
        assert torch.autograd.gradcheck(decode, (logits,), eps=1e-7, atol=1e-5)

    def test_confidence_is_the_mass_within_the_radius(self):
        logits = np.random.default_rng(0).normal(size=(3, 30, 32)) + 6.0 * draw(
            [[12.3, 14.6], [1.1, 28.2], [16.0, 15.0]], 3.0, 30, 32
        )
        points, confidence = DecodeHeatmap(from_logits=True, confidence_radius_px=3.5).decode_with_confidence(logits)
        rows, cols = np.mgrid[:30, :32]
        for z, (x, y), found in zip(logits, points.numpy(), confidence.numpy(), strict=True):
            p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
            assert found == pytest.approx(p[(cols - x) ** 2 + (rows - y) ** 2 <= 3.5**2].sum(), rel=1e-9)
        heat = np.exp(logits)
        _, of_heat = DecodeHeatmap(confidence_radius_px=3.5).decode_with_confidence(heat)
        torch.testing.assert_close(of_heat, confidence)

    def test_metatensor_gives_a_plain_tensor(self):
        assert type(DecodeHeatmap()(MetaTensor(torch.rand(2, 9, 9)))) is torch.Tensor

    @pytest.mark.parametrize("method", METHODS)
    def test_trace(self, method):
        class Head(torch.nn.Module):
            def forward(self, logits):
                return DecodeHeatmap(method, from_logits=True)(logits)

        example, other = torch.randn(1, 3, 24, 26), 3.0 * torch.randn(2, 3, 24, 26)
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.trace(Head(), example, check_trace=False), buffer)
        buffer.seek(0)
        torch.testing.assert_close(torch.jit.load(buffer)(other), Head()(other))

    @pytest.mark.parametrize(
        "settings", [{"method": "mean"}, {"window_px": 0.0}, {"smoothing_px": -1.0}, {"confidence_radius_px": np.nan}]
    )
    def test_bad_settings(self, settings):
        with pytest.raises(ConfigurationError, match=next(iter(settings))):
            DecodeHeatmap(**settings)

    @pytest.mark.parametrize("shape", [(9, 9), (1, 2, 9), (1, 9, 2), (1, 1, 1, 9, 9)])
    def test_bad_shape(self, shape):
        with pytest.raises(ValueError, match="heatmaps must be"):
            DecodeHeatmap()(torch.zeros(shape))


class TestDictionaryForms:
    def test_chain_on_the_grid_of_the_image(self):
        data = {
            "image": MetaTensor(torch.zeros(1, 40, 50), meta={"spatial_shape": np.array([99, 99])}),
            "landmarks": torch.tensor([[12.3, 20.7], [30.0, 18.2]]),
            "visibility": torch.tensor([2, 0]),
        }
        chain = Compose(
            [
                EncodeHeatmapd("landmarks", 2.0, "heatmap", ref_image_keys="image", visibility_keys="visibility"),
                DecodeHeatmapd("heatmap", points_keys="found", confidence_keys="confidence"),
            ]
        )
        out = chain(data)
        assert out["heatmap"].shape == (2, 40, 50)
        torch.testing.assert_close(out["found"][0], data["landmarks"][0], atol=1e-3, rtol=0)
        assert out["found"][1].isnan().all()
        assert out["confidence"].tolist() == [pytest.approx(0.865, abs=0.03), 0.0]
        assert "heatmap" not in data

    def test_default_keys_fixed_size_and_aliases(self):
        out = EncodeHeatmapD(["a", "b"], 1.0, spatial_size=(6, 8))({"a": torch.ones(1, 2), "b": np.ones((2, 2))})
        assert (out["a_heatmap"].shape, out["b_heatmap"].shape) == ((1, 6, 8), (2, 6, 8))
        assert DecodeHeatmapDict("a_heatmap", method="argmax")(out)["a_heatmap_points"].tolist() == [[1.0, 1.0]]

    def test_exceptions(self):
        with pytest.raises(ConfigurationError, match="one of the two"):
            EncodeHeatmapd("a", 1.0)
        with pytest.raises(ConfigurationError, match="heatmap_keys"):
            EncodeHeatmapd(["a", "b"], 1.0, heatmap_keys="h", spatial_size=(6, 6))
        with pytest.raises(KeyError):
            EncodeHeatmapd("a", 1.0, spatial_size=(6, 6))({})
        assert EncodeHeatmapd("a", 1.0, spatial_size=(6, 6), allow_missing_keys=True)({}) == {}
