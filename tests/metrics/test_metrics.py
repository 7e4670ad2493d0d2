"""Landmark metrics against plain loops, their handling of what is missing, and their life in an engine."""

from __future__ import annotations

import math
import os
import socket
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ignite.engine import Engine
from monai.handlers.ignite_metric import IgniteMetricHandler

from monai_landmark.errors import ConfigurationError
from monai_landmark.metrics import RadialErrorMetric, SuccessDetectionRate, radial_errors, summarize_errors

NAN, INF = float("nan"), float("inf")
# Errors in mm of three films with three landmarks; NaN = not annotated. The third film has no annotation at all.
ERRORS = [[1.0, 2.0, 4.5], [3.0, NAN, NAN], [NAN, NAN, NAN]]


def films(errors=ERRORS, directions=(0.6, 0.8)):
    """``(N, K, 2)`` predictions and annotations with exactly these errors."""
    truth = torch.arange(len(errors) * len(errors[0]) * 2, dtype=torch.float64).reshape(len(errors), -1, 2)
    error = torch.tensor(errors, dtype=torch.float64)
    predicted = truth + error.nan_to_num()[..., None] * torch.tensor(directions, dtype=torch.float64)
    return predicted, torch.where(error.isnan()[..., None], NAN, truth)


class TestRadialErrors:
    def test_matches_hypot(self):
        rng = np.random.default_rng(0)
        found, truth = rng.normal(size=(2, 4, 5, 2))
        expected = [
            [math.hypot(*(f - t)) for f, t in zip(*film, strict=True)] for film in zip(found, truth, strict=True)
        ]
        np.testing.assert_allclose(radial_errors(torch.from_numpy(found), torch.from_numpy(truth)), expected)

    def test_missing_annotation_is_nan_and_missing_prediction_inf(self):
        truth = torch.tensor([[0.0, 0.0], [0.0, NAN], [0.0, 0.0], [0.0, 0.0], [NAN, NAN]])
        found = torch.tensor([[3.0, 4.0], [1.0, 1.0], [NAN, 1.0], [INF, 1.0], [NAN, NAN]])
        np.testing.assert_array_equal(radial_errors(found, truth), [5.0, NAN, INF, INF, NAN])

    def test_half_precision_input_is_measured_in_float64(self):
        errors = radial_errors(torch.tensor([[1.0, 2.0]], dtype=torch.float16), torch.tensor([[1.0, 1.0]]))
        assert errors.dtype == torch.float64

    def test_exceptions(self):
        with pytest.raises(ValueError, match="K, 2"):
            radial_errors(torch.zeros(1, 3, 2), torch.zeros(1, 4, 2))
        with pytest.raises(ValueError, match="K, 2"):
            radial_errors(torch.zeros(1, 3, 3), torch.zeros(1, 3, 3))
        with pytest.raises(ValueError, match="infinite"):
            radial_errors(torch.zeros(1, 2), torch.tensor([[INF, 0.0]]))


class TestRadialErrorMetric:
    def test_reductions(self):
        metric = RadialErrorMetric()
        metric(*films())
        assert metric.aggregate().item() == pytest.approx((1 + 2 + 4.5 + 3) / 4)
        assert metric.aggregate("per_film").item() == pytest.approx(((1 + 2 + 4.5) / 3 + 3) / 2)
        np.testing.assert_allclose(metric.aggregate("per_landmark"), [2.0, 2.0, 4.5])
        assert RadialErrorMetric("per_film").reduction == "per_film"

    def test_batches_and_lists_accumulate_alike(self):
        predicted, truth = films()
        whole, pieces = RadialErrorMetric(), RadialErrorMetric()
        whole(predicted, truth)
        pieces(predicted[:1], truth[:1])
        pieces(list(predicted[1:]), list(truth[1:]))
        np.testing.assert_array_equal(pieces.get_buffer(), whole.get_buffer())
        np.testing.assert_allclose(whole.errors(), ERRORS)
        pieces.reset()
        with pytest.raises(ValueError, match="nothing was measured"):
            pieces.aggregate()

    def test_missing_prediction_cannot_vanish_from_the_mean(self):
        predicted, truth = films()
        predicted[0, 1] = NAN
        predicted[2, 0] = NAN  # not annotated: no failure
        metric = RadialErrorMetric()
        metric(predicted, truth)
        assert metric.aggregate().item() == INF
        assert metric.missing_predictions() == 1
        assert metric.aggregate("per_landmark").tolist() == [pytest.approx(2.0), INF, pytest.approx(4.5)]

    def test_nothing_annotated_is_nan(self):
        metric = RadialErrorMetric()
        metric(torch.zeros(1, 2, 2), torch.full((1, 2, 2), NAN))
        assert metric.aggregate().isnan()

    def test_exceptions(self):
        with pytest.raises(ConfigurationError, match="reduction"):
            RadialErrorMetric("median")
        with pytest.raises(ValueError, match="annotated landmarks"):
            RadialErrorMetric()(torch.zeros(1, 2, 2))


class TestSuccessDetectionRate:
    @pytest.mark.parametrize(("inclusive", "expected"), [(True, [50.0, 75.0, 100.0]), (False, [25.0, 50.0, 75.0])])
    def test_comparison_at_the_threshold(self, inclusive, expected):
        predicted, truth = films(directions=(1.0, 0.0))  # along one axis the distances are exact
        metric = SuccessDetectionRate((2.0, 3.0, 4.5), inclusive)
        metric(predicted, truth)
        np.testing.assert_allclose(metric.aggregate(), expected)
        assert metric.comparison == ("<=" if inclusive else "<")
        assert str(metric) == f"SDR (% {metric.comparison} 2, 3, 4.5 mm)"

    def test_reductions(self):
        metric = SuccessDetectionRate((2.5,))
        metric(*films())
        np.testing.assert_allclose(metric.aggregate(), [50.0])
        np.testing.assert_allclose(metric.aggregate("per_film"), [(200 / 3 + 0) / 2])
        np.testing.assert_allclose(metric.aggregate("per_landmark"), [[50.0, 100.0, 0.0]])

    def test_missing_prediction_is_a_failure(self):
        predicted, truth = films()
        predicted[0, 0] = NAN
        metric = SuccessDetectionRate((2.5, 1e9))
        metric(predicted, truth)
        np.testing.assert_allclose(metric.aggregate(), [25.0, 75.0])

    @pytest.mark.parametrize("thresholds", [(), (2.0, 0.0), (NAN,)])
    def test_bad_thresholds(self, thresholds):
        with pytest.raises(ConfigurationError, match="thresholds_mm"):
            SuccessDetectionRate(thresholds)


class TestSummarizeErrors:
    def test_numbers(self):
        points = [1.0, 2.0, 4.5, 3.0]
        summary = summarize_errors(ERRORS, thresholds_mm=(2, 2.5))
        assert (summary["films"], summary["n"], summary["missing"], summary["comparison"]) == (3, 4, 0, "<=")
        assert summary["mre_mm"] == pytest.approx(np.mean(points))
        assert summary["mre_mm_per_film"] == pytest.approx((2.5 + 3.0) / 2)
        assert summary["sd_mm"] == pytest.approx(np.std(points, ddof=1))
        assert summary["median_mm"] == pytest.approx(np.median(points))
        assert summary["p95_mm"] == pytest.approx(np.quantile(points, 0.95))
        assert summary["max_mm"] == 4.5
        assert (summary["sdr2"], summary["sdr2.5"]) == (50.0, 50.0)
        assert summarize_errors(ERRORS, (2,), inclusive=False)["sdr2"] == 25.0

    def test_interval_draws_whole_films(self):
        """20 films of 500 equal errors: the interval is that of 20 independent values, not of 10,000."""
        rng = np.random.default_rng(3)
        film = rng.gamma(4.0, 0.4, size=20)
        summary = summarize_errors(np.repeat(film[:, None], 500, axis=1), resamples=4000)
        low, high = summary["mre_mm_interval"]
        standard_error = film.std() / math.sqrt(20)
        assert low < film.mean() < high
        assert (high - low) / (2 * 1.96 * standard_error) == pytest.approx(1.0, abs=0.1)

    def test_interval_keeps_a_patients_films_together(self):
        errors = np.repeat(np.random.default_rng(0).gamma(4.0, 0.4, size=(20, 1)), 4, axis=0)
        patients = [f"patient {i // 4}" for i in range(80)]
        width = [np.diff(summarize_errors(errors, patients=p)["mre_mm_interval"])[0] for p in (None, patients)]
        assert width[1] > 1.5 * width[0]

    def test_seed_fixes_the_interval(self):
        errors = np.random.default_rng(0).gamma(4.0, 0.4, size=(30, 5))
        first, again, other = (summarize_errors(errors, seed=s)["mre_mm_interval"] for s in (1, 1, 2))
        assert first == again != other

    def test_missing_prediction(self):
        summary = summarize_errors(torch.tensor([[1.0, 2.0], [INF, 3.0], [1.0, 1.0]]), (2,))
        assert (summary["n"], summary["missing"], summary["mre_mm"], summary["max_mm"]) == (6, 1, INF, INF)
        assert (summary["median_mm"], summary["p95_mm"]) == (1.5, INF)
        assert summary["sdr2"] == pytest.approx(400 / 6)

    def test_no_points_and_one_film(self):
        empty = summarize_errors([[NAN, NAN]])
        assert empty["n"] == 0
        assert all(math.isnan(empty[key]) for key in ("mre_mm", "median_mm", "p95_mm", "sdr2", "max_mm"))
        assert np.isnan(summarize_errors([[1.0, 2.0]])["mre_mm_interval"]).all()

    def test_exceptions(self):
        for bad, match in [([1.0], "N, K"), (np.zeros((0, 3)), "at least one"), ([[-1.0]], "negative")]:
            with pytest.raises(ValueError, match=match):
                summarize_errors(bad)
        with pytest.raises(ValueError, match="patients"):
            summarize_errors([[1.0]], patients=["a", "b"])


def test_metrics_run_in_an_ignite_engine():
    predicted, truth = films()
    engine = Engine(lambda _, batch: {"found": batch[0], "truth": batch[1]})

    def pair(output):
        return output["found"], output["truth"]

    IgniteMetricHandler(RadialErrorMetric(), output_transform=pair).attach(engine, "mre_mm")
    IgniteMetricHandler(SuccessDetectionRate((2.5,)), output_transform=pair).attach(engine, "sdr2.5")
    engine.run([(predicted[:2], truth[:2]), (list(predicted[2:]), list(truth[2:]))], max_epochs=2)
    assert engine.state.metrics["mre_mm"] == pytest.approx(2.625)
    assert engine.state.metrics["sdr2.5"] == pytest.approx(50.0)
    np.testing.assert_allclose(engine.state.metric_details["mre_mm"], ERRORS)


def _measure_a_share(rank: int, port: int, out: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    predicted, truth = films()
    share = slice(0, 2) if rank == 0 else slice(2, 3)  # uneven on purpose
    metric = RadialErrorMetric()
    metric(predicted[share], truth[share])
    torch.save((metric.get_buffer(), metric.aggregate()), f"{out}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork, which spares each process the imports")
def test_two_processes_see_all_films(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(_measure_a_share, args=(port, str(tmp_path)), nprocs=2, start_method="fork")
    for rank in range(2):
        errors, mean = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        np.testing.assert_allclose(errors, ERRORS)
        assert mean.item() == pytest.approx(2.625)
