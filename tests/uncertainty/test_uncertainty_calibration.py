"""The calibration of a network: which films it takes, what it promises, and its file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_landmark.data.datalist import Datalist
from monai_landmark.engines import inference_facts
from monai_landmark.errors import ConfigurationError, DataError, WeightsError
from monai_landmark.uncertainty import Calibration

NAMES = ("sella", "nasion", "rare")
CARD = {"films": ["t0", "t1"], "pseudo_films": ["u0"], "sha256": "0f" * 32}


def datalist() -> Datalist:
    sections = {
        "training": [{"id": f"t{i}"} for i in range(30)],
        "validation": [{"id": f"v{i}"} for i in range(30)],
        "test": [{"id": f"x{i}"} for i in range(5)],
        "unlabelled": [{"id": "u0"}],
    }
    sections["validation"][7]["near_duplicates"] = ["x3"]
    sections["validation"][8]["near_duplicates"] = ["t0"]
    sections["training"][0]["patient"] = sections["validation"][9]["patient"] = "p"
    sections["training"][2]["patient"] = sections["validation"][10]["patient"] = "q"  # t2 was not trained on
    return Datalist("films", "isbi19", Path(), sections)


FILMS = tuple(f"v{i}" for i in range(30) if i not in (7, 8, 9))


def fitted(**changes: Any) -> Calibration:
    random = np.random.default_rng(0)
    expected = random.gamma(2.0, 1.0, (len(FILMS), 3))
    errors = random.rayleigh(expected)
    errors[3:, 2] = np.nan
    words = {"errors_mm": errors, "expected_mm": expected, "films": FILMS, "names": NAMES}
    return Calibration.fit(**({**words, "datalist": datalist(), "card": CARD} | changes))


def test_radii_follow_the_films_and_the_rule() -> None:
    random = np.random.default_rng(0)
    expected = random.gamma(2.0, 1.0, (len(FILMS), 3))
    errors = random.rayleigh(expected)
    calibration = fitted(level=0.8)
    rank = math.ceil(28 * 0.8)
    scores = np.sort(errors[:, :2] / (expected[:, :2] + 0.1), axis=0)[rank - 1]
    np.testing.assert_allclose(calibration.factors[:2], scores, rtol=1e-12)
    np.testing.assert_allclose(calibration.fixed_radii_mm[:2], np.sort(errors[:, :2], axis=0)[rank - 1], rtol=1e-12)
    radii = calibration.region_radius_mm([[1.0, 2.0, 1.0], [np.nan, 0.0, 1.0]])
    np.testing.assert_allclose(radii[:, :2], [[scores[0] * 1.1, scores[1] * 2.1], [np.nan, scores[1] * 0.1]])
    # three films are too few: no region rather than a small one
    assert calibration.factors[2] == calibration.fixed_radii_mm[2] == math.inf and np.isnan(radii[:, 2]).all()
    assert calibration.sections == ("validation",) and calibration.films == FILMS


def test_refers_from_the_threshold_on_and_what_is_unknown() -> None:
    calibration = fitted(tolerance_mm=3.0, risk=0.2)
    limit = calibration.refer_from_mm
    assert 0 < limit < math.inf
    assert calibration.refer([np.nextafter(limit, 0), limit, np.nan]).tolist() == [False, True, True]


def test_a_landmark_not_found_is_an_infinite_error_and_not_left_out() -> None:
    random = np.random.default_rng(0)
    errors, expected = random.rayleigh(1.0, (len(FILMS), 3)), np.ones((len(FILMS), 3))
    errors[:6, 0], expected[:6, 0] = np.inf, np.nan
    calibration = fitted(errors_mm=errors, expected_mm=expected)
    assert calibration.factors[0] == math.inf and np.isfinite(calibration.factors[1:]).all()


@pytest.mark.parametrize(
    ("film", "reason"),
    [
        ("x0", "it is a test film"),
        ("t1", "trained on it"),
        ("u0", "trained on it"),
        ("v7", "same picture as test film x3"),
        ("v8", "same picture as training film t0"),
        ("v9", "another film of this patient"),
        ("v0", "named twice"),
        ("unknown", "in no section"),
    ],
)
@pytest.mark.parametrize("part", ["films", "scale_films"])
def test_refuses_films_that_flatter(film: str, reason: str, part: str) -> None:
    changes: dict[str, Any] = {"films": (film, *FILMS[1:])} if part == "films" else {"scale_films": [film]}
    if film == "v0" and part == "films":
        changes = {"films": (*FILMS[:-1], "v0")}
    with pytest.raises(ConfigurationError, match=reason):
        fitted(**changes)


@pytest.mark.parametrize("card", [{}, {"films": 6}, {"films": ["t0"], "pseudo_films": 3}])
def test_refuses_a_network_that_does_not_say_what_it_was_trained_on(card: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="trained on"):
        fitted(card=card)


def test_too_few_films_for_the_level_is_an_error() -> None:
    few = {"films": FILMS[:8], "errors_mm": np.ones((8, 3)), "expected_mm": np.ones((8, 3))}
    with pytest.raises(ConfigurationError, match="at least 9"):
        fitted(**few)
    assert np.isfinite(fitted(**few, level=0.8).factors).all()
    with pytest.raises(ConfigurationError, match="too few"):
        fitted(films=(), errors_mm=np.ones((0, 3)), expected_mm=np.ones((0, 3)))


def test_refuses_shapes_and_scales() -> None:
    with pytest.raises(ValueError, match="films, landmarks"):
        fitted(errors_mm=np.ones((3, 3)))
    with pytest.raises(ConfigurationError, match="scales"):
        fitted(scales=[1.0, 2.0])


def test_file_comes_back_exactly(tmp_path: Path) -> None:
    calibration = fitted(scales=[0.5, 1 / 3, 2.0], scale_films=["t5", "t6"])
    (tmp_path / "model.json").write_text(json.dumps(CARD))
    path = calibration.save(tmp_path)
    assert path.name == "uncertainty.json"
    back = Calibration.of_model(tmp_path)
    assert back is not None
    for key, value in vars(calibration).items():
        np.testing.assert_array_equal(getattr(back, key), value, err_msg=key)
    assert back.sections == ("training", "validation")


def test_a_network_without_the_file_is_not_calibrated(tmp_path: Path) -> None:
    assert Calibration.of_model(tmp_path) is None


def test_the_calibration_of_another_way_to_the_maps_is_refused(tmp_path: Path) -> None:
    inference = inference_facts([[0, 1], [4, 1]])
    fitted(inference=inference).save(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(CARD))
    assert Calibration.of_model(tmp_path, inference_facts([(0.0, 1.0), (4.0, 1)])) is not None
    for other in (inference_facts([[0, 1]]), inference_facts([[0, 1], [4, 1]], 5)):
        with pytest.raises(ConfigurationError, match="another way"):
            Calibration.of_model(tmp_path, other)
    (tmp_path / "member").mkdir()
    (tmp_path / "member" / "model.json").write_text(json.dumps(CARD))
    assert inference_facts([[0, 1]], members=[tmp_path / "member"])["members"] == [CARD["sha256"]]


def test_the_calibration_of_other_weights_is_refused(tmp_path: Path) -> None:
    fitted().save(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(CARD | {"sha256": "1e" * 32}))
    with pytest.raises(WeightsError, match="other weights"):
        Calibration.of_model(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format_version", 1),
        ("format", "other"),
        ("level", 1.5),
        ("level", None),
        ("level", "0.9"),
        ("factors", [1.0]),
        ("factors", [1.0, -1.0, 1.0]),
        ("scales", [1.0, None, 1.0]),
        ("scales", [1.0, 0.0, 1.0]),
        ("inference", [3]),
        ("films", [1, 2]),
        ("sections", ["test"]),
        ("scale_films", ["v0"]),
        ("risk", True),
        ("refer_from_mm", -1.0),
        ("patient", "Doe"),
        ("names", KeyError),
    ],
)
def test_refuses_a_file_that_was_changed(tmp_path: Path, key: str, value: Any) -> None:
    path = fitted().save(tmp_path)
    document = json.loads(path.read_text())
    if value is KeyError:
        del document[key]
    else:
        document[key] = value
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"uncertainty\.json"):
        Calibration.load(path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"level": NaN}'])
def test_refuses_text_that_is_no_calibration(tmp_path: Path, text: str) -> None:
    (tmp_path / "uncertainty.json").write_text(text)
    with pytest.raises(DataError, match=r"uncertainty\.json"):
        Calibration.load(tmp_path / "uncertainty.json")
