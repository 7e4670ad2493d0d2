"""Where embeddings come from: great circles, neighborhoods, classes; and what a DICOM file of a drawn film says."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch

from monai_landmark.data.reader import RadiographReader
from monai_landmark.errors import ConfigurationError
from monai_landmark.generation.dicom import write_synthetic_dicom
from monai_landmark.generation.generate import classes_of
from monai_landmark.generation.strategies import STRATEGIES, plan_films, slerp


def films(count: int = 8, dim: int = 6) -> list[dict[str, Any]]:
    drawn = torch.Generator().manual_seed(0)
    return [{"source": torch.randn(1, dim, generator=drawn) + 4} for _ in range(count)]


class TestSlerp:
    def test_walks_the_circle_at_even_speed(self) -> None:
        east, north = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0])
        for share in (0.0, 0.25, 0.5, 1.0):
            length, angle = 2 + 2 * share, share * math.pi / 2
            expected = torch.tensor([length * math.cos(angle), length * math.sin(angle)])
            torch.testing.assert_close(slerp(east, north, share), expected, atol=1e-5, rtol=0)

    def test_the_same_and_the_opposite_direction_stay_finite(self) -> None:
        one = torch.tensor([[3.0, 0.0]])
        torch.testing.assert_close(slerp(one, one, 0.3), one)
        assert slerp(one, -one, 0.3).isfinite().all()


class TestPlans:
    def test_real_films_come_each_in_turn_with_their_own_tokens(self) -> None:
        pool = films()
        plans = plan_films("films", pool, 16)
        assert sorted(plan.films[0] for plan in plans[:8]) == list(range(8))
        assert [p.films for p in plans[:8]] != [p.films for p in plans[8:]]
        assert all(torch.allclose(plan.tokens, pool[plan.films[0]]["source"]) for plan in plans)

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_a_plan_depends_on_seed_and_number_alone(self, strategy: str) -> None:
        whole = plan_films(strategy, films(), 6, seed=3)
        part = plan_films(strategy, films(), 2, seed=3, first=4)
        for a, b in zip(whole[4:], part, strict=True):
            assert a.films == b.films and a.facts == b.facts and torch.equal(a.tokens, b.tokens)
        other = plan_films(strategy, films(), 6, seed=4)
        assert [plan.films for plan in whole] != [plan.films for plan in other]

    def test_interpolation_is_on_the_circle_in_the_scale_of_the_model(self) -> None:
        pool = films()
        tokens = torch.stack([film["source"] for film in pool])
        center, spread = tokens.mean(0), tokens.std(0)
        for plan in plan_films("interpolate", pool, 5, center=center, spread=spread):
            one, other = ((tokens[each] - center) / spread for each in plan.films)
            expected = slerp(one, other, plan.facts["share"]) * spread + center
            torch.testing.assert_close(plan.tokens, expected)
            assert plan.films[0] != plan.films[1]

    def test_a_neighborhood_is_among_the_nearest(self) -> None:
        pool = films()
        tokens = torch.stack([film["source"] for film in pool])
        for plan in plan_films("neighborhood", pool, 8, neighbors=3):
            film, *around = plan.films
            order = (tokens - tokens[film]).flatten(1).norm(dim=1).argsort()
            assert order[0] == film and around == order[1:4].tolist()
            assert sum(plan.facts["parts"]) == pytest.approx(1, abs=1e-3) and min(plan.facts["parts"]) >= 0
            mixed = sum(p * tokens[f] for p, f in zip(plan.facts["parts"], plan.films, strict=True))
            torch.testing.assert_close(plan.tokens, mixed, atol=1e-2, rtol=1e-2)

    @pytest.mark.parametrize("strategy", ["interpolate", "neighborhood"])
    def test_stays_within_a_class_and_leaves_out_one_of_a_single_film(self, strategy: str) -> None:
        classes = ["a", "b", "a", "b", "a", "b", "a", "alone"]
        plans = plan_films(strategy, films(), 14, classes=classes)
        assert all(len({classes[film] for film in plan.films}) == 1 for plan in plans)
        assert {plan.films[0] for plan in plans} == set(range(7))

    def test_refusals(self) -> None:
        with pytest.raises(ConfigurationError, match="unknown strategy"):
            plan_films("magic", films(), 1)
        for strategy, count in (("films", 0), ("interpolate", 1)):
            with pytest.raises(ConfigurationError, match="too few films"):
                plan_films(strategy, films(count), 1)


def test_classes_come_from_the_films_or_a_table(tmp_path: Path) -> None:
    table = tmp_path / "manifest.csv"
    table.write_text("id,class\na,normal\nb,viral\nc,\n", encoding="utf-8")
    items: list[dict[str, Any]] = [{"id": "a"}, {"id": "b"}]
    assert classes_of(items, "class", table) == ["normal", "viral"]
    assert classes_of([{"id": "x", "class": 3}], "class", None) == [3]
    with pytest.raises(ConfigurationError, match="1 of 3 films have no class"):
        classes_of([*items, {"id": "c"}], "class", table)


class TestDicom:
    @pytest.fixture
    def written(self, tmp_path: Path) -> tuple[Path, Any]:
        picture = np.random.default_rng(0).integers(0, 255, (33, 31), dtype=np.uint8)
        return write_synthetic_dicom(tmp_path / "film.dcm", picture, "a" * 64, 7), picture

    def test_reads_back_as_it_was_drawn(self, written: tuple[Path, Any]) -> None:
        path, picture = written
        assert np.array_equal(pydicom.dcmread(path).pixel_array, picture)
        reader = RadiographReader()
        pixels, meta = reader.get_data(reader.read(str(path)))
        assert np.array_equal(pixels, picture) and meta["spacing_source"] == "none"

    def test_says_that_it_is_synthetic_and_of_nobody(self, written: tuple[Path, Any]) -> None:
        film = pydicom.dcmread(written[0])
        assert film.SyntheticData == "YES" and film.ConversionType == "SYN" and film.ImageType[0] == "DERIVED"
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyDate", "ReferringPhysicianName"):
            assert not film[keyword].value

    def test_the_same_seed_has_the_same_identifiers(self, written: tuple[Path, Any], tmp_path: Path) -> None:
        path, picture = written
        again = write_synthetic_dicom(tmp_path / "again.dcm", picture, "a" * 64, 7)
        other = write_synthetic_dicom(tmp_path / "other.dcm", picture, "a" * 64, 8)
        assert path.read_bytes() == again.read_bytes()
        assert pydicom.dcmread(path).SOPInstanceUID != pydicom.dcmread(other).SOPInstanceUID
        assert pydicom.dcmread(path).SeriesInstanceUID == pydicom.dcmread(other).SeriesInstanceUID

    @pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools are not here")
    def test_the_validator_knows_no_error_but_the_newest_attribute(self, written: tuple[Path, Any]) -> None:
        done = subprocess.run(["dciodvfy", str(written[0])], capture_output=True, text=True, check=False)
        errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
        assert all("(0x0008,0x001c)" in error for error in errors)  # Synthetic Data, unknown to older dicom3tools
