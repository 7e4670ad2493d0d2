"""Pools hold every film once, none of the evaluation, and number what the network is conditioned on."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.bundle import ConfigParser
from numpy.typing import NDArray
from PIL import Image

from monai_landmark.data import readable
from monai_landmark.data.datasets import films as films_module
from monai_landmark.data.pool import hold_out, pretraining_pool
from monai_landmark.engines import DrawSampler
from monai_landmark.errors import AnnotationError, ConfigurationError, FilmError
from monai_landmark.files import file_sha256
from monai_landmark.privacy import log_name


def pixels(seed: int) -> NDArray[np.float32]:
    """Blobs of several sizes, whole numbers from 0 to 255, (90, 72)."""
    random = np.random.default_rng(seed)
    coarse = [Image.fromarray(random.normal(size=(n, n)).astype(np.float32) * 30 / n) for n in (4, 9, 20, 45)]
    field = np.sum([np.asarray(part.resize((72, 90), Image.Resampling.BICUBIC)) for part in coarse], axis=0)
    return np.asarray(255 * (field - field.min()) / np.ptp(field), dtype=np.float32).round()


def save(path: Path, seed: int, change: Callable[[Any], Any] = lambda p: p) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(change(pixels(seed)).astype(np.uint8)).save(path)


def datalist(folder: Path, sections: dict[str, dict[str, dict[str, Any]]], first_seed: int = 0) -> Path:
    """A datalist with its films, each of another seed; ``sections`` holds further fields by id."""
    content: dict[str, Any] = {"name": folder.name, "schema": "chest6", "root": "."}
    seed = first_seed
    for section, films in sections.items():
        content[section] = []
        for name, more in films.items():
            save(folder / f"{name}.png", seed)
            seed += 1
            item = {"image": f"{name}.png", "id": name, "patient": f"{folder.name}-{name}", "size": [90, 72]}
            item |= {"spacing": [0.1, 0.2], "spacing_source": "user", "sha256": file_sha256(folder / f"{name}.png")}
            item |= {"landmarks": [[1.0, 2.0]] * 6, "visibility": [2] * 6}
            content[section].append(item | more)
    path = folder / "datalist.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture()
def ceph(tmp_path: Path) -> Path:
    """Three films to train on, one to validate, two to test: seeds 0 to 5."""
    sections = {"training": {"a": {"view": "AP"}, "b": {"view": "PA"}, "c": {}}, "validation": {"v": {}}}
    return datalist(tmp_path / "ceph", sections | {"test": {"s": {}, "t": {}}})


@pytest.fixture()
def chest(tmp_path: Path) -> Path:
    """A folder of three films: seeds 100 to 102."""
    for index, name in enumerate(("x.png", "sub/y.png", "sub/z.png")):
        save(tmp_path / "chest" / name, 100 + index)
    return tmp_path / "chest"


def ids(pool: Any) -> list[str]:
    return [film["id"] for film in pool.films]


class TestSources:
    def test_the_runs_datalist_alone_is_not_read(self, ceph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (films_module, readable):
            monkeypatch.setattr(module, "read_film", pytest.fail)
        pool = pretraining_pool(ceph)
        assert ids(pool) == ["a", "b", "c", "v"]
        assert (pool.sources, pool.conditions, pool.weights, pool.left_out) == (("ceph",), ("ceph",), None, [])
        expected = {"image": str(ceph.parent / "a.png"), "id": "a", "spacing": [0.1, 0.2], "spacing_source": "user"}
        assert pool.films[0] == expected | {"source": 1, "source_name": "ceph", "patient": "ceph-a"}

    def test_a_folder_and_another_datalist_come_after_it(self, ceph: Path, chest: Path, tmp_path: Path) -> None:
        hand = datalist(tmp_path / "hand", {"training": {"a": {}}, "test": {"b": {}}}, first_seed=200)
        pool = pretraining_pool(ceph, [chest, {"path": str(hand), "name": "hands"}])
        assert ids(pool)[4:] == ["chest/sub/y.png", "chest/sub/z.png", "chest/x.png", "hands/a"]
        assert [film["source"] for film in pool.films] == [1, 1, 1, 1, 2, 2, 2, 3]
        assert pool.sources == pool.conditions == ("ceph", "chest", "hands")
        assert pool.films[6] == {
            "image": str(chest / "x.png"),
            "id": "chest/x.png",
            "patient": None,
            "spacing": None,
            "spacing_source": "none",
            "source": 2,
            "source_name": "chest",
        }

    def test_the_runs_datalist_can_move_or_be_left_out(self, ceph: Path, chest: Path) -> None:
        assert pretraining_pool(ceph, [chest, ceph]).sources == ("chest", "ceph")
        without = pretraining_pool(ceph, [{"path": ceph, "weight": 0}, chest])
        assert without.sources == ("chest",) and without.films[0]["source"] == 1 and without.weights is None
        assert pretraining_pool(None, str(chest)).sources == ("chest",)

    def test_a_datalist_left_out_still_says_what_is_tested_on(self, ceph: Path, chest: Path) -> None:
        shutil.copy(ceph.parent / "t.png", chest / "w.png")
        with pytest.raises(ConfigurationError, match=f"{log_name('chest/w.png')} is {log_name('ceph/t')}"):
            pretraining_pool(ceph, [{"path": ceph, "weight": 0}, chest])

    def test_a_bundles_command_line_can_say_it(self, ceph: Path, chest: Path) -> None:
        target = {"_target_": "monai_landmark.data.pool.pretraining_pool", "datalist": "@datalist", "pool": "@pool"}
        parser = ConfigParser({"datalist": str(ceph), "pool": [], "films": target})
        parser.update({"pool": [str(chest), {"path": "@datalist", "weight": 2}]})
        assert parser.get_parsed_content("films").sources == ("chest", "ceph")

    @pytest.mark.parametrize(
        ("pool", "message"),
        [
            (["/nowhere"], "neither a folder nor a datalist"),
            ([{"name": "x"}], "not understood"),
            ([{"path": "x", "wieght": 2}], "not understood"),
            ([3], "not understood"),
            ([{"path": "x", "weight": -1}], "not a share"),
            ([{"path": "x", "weight": float("nan")}], "not a share"),
            ([{"path": "x", "weight": True}], "not a share"),
        ],
    )
    def test_what_is_no_source_is_refused(self, pool: Any, message: str) -> None:
        with pytest.raises(ConfigurationError, match=message):
            pretraining_pool(None, pool)

    def test_two_sources_of_one_name_are_refused(self, ceph: Path, chest: Path, tmp_path: Path) -> None:
        shutil.copytree(chest, tmp_path / "other" / "chest")
        with pytest.raises(ConfigurationError, match="two sources have one name"):
            pretraining_pool(ceph, [chest, tmp_path / "other" / "chest"])

    def test_empty_pools_and_sources_are_refused(self, ceph: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(ConfigurationError, match="no film of a source is left"):
            pretraining_pool(ceph, tmp_path / "empty")
        with pytest.raises(ConfigurationError, match="no source of films"):
            pretraining_pool(None)
        with pytest.raises(ConfigurationError, match="on_evaluation_film"):
            pretraining_pool(ceph, on_evaluation_film="ask")  # type: ignore[arg-type]

    def test_a_film_that_cannot_be_read_is_left_out_with_its_fault(self, ceph: Path, chest: Path) -> None:
        (chest / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
        pool = pretraining_pool(ceph, chest, broken_share=0.2)
        assert len(pool.films) == 7
        (entry,) = pool.left_out
        assert (entry.film, entry.by) == ("chest/broken.png", "fault") and "broken" in entry.reason


class TestEvaluation:
    def test_the_run_refuses_an_evaluation_film(self, ceph: Path, chest: Path) -> None:
        shutil.copy(ceph.parent / "s.png", chest / "w.png")
        said = f"1 evaluation films are in .*: {log_name('chest/w.png')} is {log_name('ceph/s')}"
        with pytest.raises(ConfigurationError, match=said):
            pretraining_pool(ceph, chest)

    def test_it_refuses_before_any_film_is_read(self, ceph: Path, chest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copy(ceph.parent / "s.png", chest / "w.png")
        monkeypatch.setattr(films_module, "read_film", pytest.fail)
        with pytest.raises(ConfigurationError, match="evaluation films are in"):
            pretraining_pool(ceph, chest)

    def test_the_same_pixels_in_another_file_are_refused_too(self, ceph: Path, chest: Path) -> None:
        with Image.open(ceph.parent / "s.png") as film:
            film.save(chest / "w.bmp")
        with pytest.raises(ConfigurationError, match=f"{log_name('chest/w.bmp')} is {log_name('ceph/s')}"):
            pretraining_pool(ceph, chest)

    def test_it_names_ten_and_counts_the_others(self, tmp_path: Path) -> None:
        tested = datalist(tmp_path / "tested", {"test": {f"t{index:02d}": {} for index in range(13)}})
        with pytest.raises(ConfigurationError, match=f"13 evaluation films .* is {log_name('tested/t09')} and 3 more"):
            pretraining_pool(None, tmp_path / "tested", evaluation=tested)

    def test_it_drops_them_when_asked(self, ceph: Path, chest: Path, caplog: pytest.LogCaptureFixture) -> None:
        shutil.copy(ceph.parent / "s.png", chest / "w.png")
        with caplog.at_level(logging.WARNING, "monai_landmark"):
            pool = pretraining_pool(ceph, chest, on_evaluation_film="drop")
        assert "chest/w.png" not in ids(pool) and len(pool.films) == 7
        assert [(entry.film, entry.reason) for entry in pool.left_out] == [
            ("chest/w.png", "is evaluation film: ceph/s")
        ]
        assert (
            f"1 films left out of the pre-training pool, is evaluation film: {log_name('chest/w.png')}" in caplog.text
        )

    def test_a_folder_that_is_evaluated_on_cannot_be_the_pool(self, chest: Path) -> None:
        with pytest.raises(ConfigurationError, match="3 evaluation films are in"):
            pretraining_pool(None, chest, evaluation=[chest])

    def test_near_copies_are_dropped(self, ceph: Path, chest: Path) -> None:
        save(chest / "copy.png", 5, lambda p: 255 * (p / 255) ** 0.8)  # film t with another tone curve
        pool = pretraining_pool(ceph, chest)
        (entry,) = pool.left_out
        assert entry.film == "chest/copy.png" and entry.by == "rule"
        assert entry.reason.startswith("nearly the same as evaluation film: ceph/t, correlation ")
        assert ids(pool)[4:] == ["chest/sub/y.png", "chest/sub/z.png", "chest/x.png"]

    def test_near_copies_of_training_films_stay(self, ceph: Path, chest: Path) -> None:
        save(chest / "copy.png", 0, lambda p: 255 * (p / 255) ** 0.8)
        assert "chest/copy.png" in ids(pretraining_pool(ceph, chest))

    def test_test_sections_of_every_datalist_count(self, ceph: Path, tmp_path: Path) -> None:
        """A film of the run's datalist that another datalist tests on is dropped or refused as well."""
        hand = datalist(tmp_path / "hand", {"training": {"h": {}}, "test": {"i": {}, "j": {}}}, first_seed=200)
        save(ceph.parent / "a.png", 201, lambda p: 255 * (p / 255) ** 0.8)
        pool = pretraining_pool(ceph, hand)
        assert ids(pool) == ["b", "c", "v", "hand/h"]

    def test_what_prepare_has_marked_is_dropped_and_not_refused(self, tmp_path: Path) -> None:
        sections = {"training": {"a": {"near_duplicates": ["t"]}, "b": {"near_duplicates": ["c"]}, "c": {}}}
        own = datalist(tmp_path / "own", sections | {"test": {"t": {"near_duplicates": ["a"]}}})
        pool = pretraining_pool(own)
        assert ids(pool) == ["b", "c"]
        assert [(entry.film, entry.reason) for entry in pool.left_out] == [
            ("a", "marked in its datalist as a copy of test film: t")
        ]

    def test_a_test_film_of_the_same_name_in_another_datalist_is_not_meant(self, tmp_path: Path) -> None:
        one = datalist(tmp_path / "one", {"training": {"a": {"near_duplicates": ["t"]}}, "test": {"u": {}}})
        other = datalist(tmp_path / "other", {"training": {"b": {}}, "test": {"t": {}}}, first_seed=300)
        assert ids(pretraining_pool(one, other)) == ["a", "other/b"]

    def test_one_picture_twice_in_a_data_set_is_dropped_and_not_refused(self, tmp_path: Path) -> None:
        own = datalist(tmp_path / "own", {"training": {"a": {}, "b": {}}, "test": {"t": {}}})
        content = json.loads(own.read_text())
        content["test"][0]["sha256"] = content["training"][0]["sha256"]
        own.write_text(json.dumps(content))
        assert ids(pretraining_pool(own)) == ["b"]

    def test_further_evaluation_films(self, ceph: Path, chest: Path, tmp_path: Path) -> None:
        save(tmp_path / "clinic" / "film.png", 101)
        with pytest.raises(ConfigurationError, match=f"{log_name('chest/sub/y.png')} is {log_name('clinic/film.png')}"):
            pretraining_pool(ceph, chest, evaluation=tmp_path / "clinic")
        other = datalist(tmp_path / "other", {"training": {"a": {}}}, first_seed=300)
        with pytest.raises(ConfigurationError, match="no test section"):
            pretraining_pool(ceph, chest, evaluation=[other])

    def test_an_evaluation_film_that_cannot_be_compared_stops_the_run(self, ceph: Path, chest: Path) -> None:
        (ceph.parent / "s.png").unlink()
        with pytest.raises(FilmError, match=f"evaluation film {log_name('ceph/s')} cannot be compared"):
            pretraining_pool(ceph, chest)


class TestCache:
    def test_the_second_run_reads_no_film(
        self, ceph: Path, chest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save(chest / "copy.png", 5, lambda p: 255 * (p / 255) ** 0.8)
        cache = tmp_path / "films.sqlite"
        first = pretraining_pool(ceph, chest, cache=cache)
        monkeypatch.setattr(films_module, "read_film", pytest.fail)
        assert pretraining_pool(ceph, chest, cache=cache) == first
        assert [entry.film for entry in first.left_out] == ["chest/copy.png"]

    def test_a_film_that_has_changed_is_read_again(self, ceph: Path, chest: Path, tmp_path: Path) -> None:
        cache = tmp_path / "films.sqlite"
        assert "chest/x.png" in ids(pretraining_pool(ceph, chest, cache=cache))
        save(chest / "x.png", 5, lambda p: 255 * (p / 255) ** 0.8)
        assert "chest/x.png" not in ids(pretraining_pool(ceph, chest, cache=cache))


class TestPatients:
    @pytest.fixture()
    def tested(self, tmp_path: Path) -> Path:
        sections = {"training": {"a": {"patient": "p0"}}, "test": {"t": {"patient": "p1"}}}
        return datalist(tmp_path / "tested", sections)

    def test_further_films_of_an_evaluated_patient_are_dropped(self, tested: Path, chest: Path) -> None:
        (chest / "manifest.csv").write_text("file,patient_group\nx.png,p1\nsub/y.png,p2\n")
        pool = pretraining_pool(tested, chest)
        assert ids(pool) == ["a", "chest/sub/y.png", "chest/sub/z.png"]
        assert pool.left_out[0].reason == "shows the patient of evaluation film: tested/t, p1"

    @pytest.mark.parametrize("which", ["tested", "other"])
    def test_unless_names_mean_somebody_else(self, tested: Path, tmp_path: Path, which: str) -> None:
        other = datalist(tmp_path / "other", {"training": {"o": {"patient": "p1"}}}, first_seed=300)
        with pytest.raises(ConfigurationError, match="no film of a source is left"):
            pretraining_pool(tested, other)
        entries = [{"path": path, "own_patients": path.parent.name == which} for path in (tested, other)]
        assert ids(pretraining_pool(tested, entries)) == ["a", "other/o"]

    def test_a_manifest_without_patients_is_refused(self, tested: Path, chest: Path) -> None:
        (chest / "manifest.csv").write_text("file,view\nx.png,AP\n")
        with pytest.raises(AnnotationError, match="patient_group"):
            pretraining_pool(tested, chest)


class TestCopies:
    def test_identical_files_are_kept_once(self, ceph: Path, chest: Path) -> None:
        shutil.copy(ceph.parent / "a.png", chest / "again.png")
        shutil.copy(chest / "x.png", chest / "xx.png")
        pool = pretraining_pool(ceph, chest)
        assert [(entry.film, entry.reason) for entry in pool.left_out] == [
            ("chest/again.png", "the same file as: a"),
            ("chest/xx.png", "the same file as: chest/x.png"),
        ]
        assert len(pool.films) == 7

    def test_also_where_nothing_is_evaluated(self, chest: Path) -> None:
        shutil.copy(chest / "x.png", chest / "xx.png")
        assert len(pretraining_pool(None, chest).films) == 3


class TestConditions:
    def test_any_field_can_be_the_condition(self, ceph: Path, chest: Path) -> None:
        (chest / "manifest.csv").write_text("file,patient_group,view\nx.png,p1,LL\nsub/y.png,p2,\n")
        pool = pretraining_pool(ceph, chest, condition_on="view")
        assert pool.conditions == ("AP", "LL", "PA")
        assert [film["source"] for film in pool.films] == [1, 3, 0, 0, 0, 0, 2]
        assert pool.films[-1]["source_name"] == "chest" and pool.sources == ("ceph", "chest")

    @pytest.mark.parametrize("field", ["veiw", "size"])
    def test_a_field_that_no_film_has_is_refused(self, ceph: Path, field: str) -> None:
        with pytest.raises(ConfigurationError, match=r"condition_on.*view"):
            pretraining_pool(ceph, condition_on=field)


class TestHoldOut:
    def test_patients_stay_together_and_seeds_repeat(self, tmp_path: Path) -> None:
        films = {f"f{index:02d}": {"patient": f"p{index // 2}"} for index in range(40)}
        pool = pretraining_pool(datalist(tmp_path / "own", {"training": films}))
        rest, held = hold_out(pool, 3, seed=1)
        assert sorted(ids(rest) + ids(held)) == ids(pool)
        assert len(held.films) == 2  # a third film would tear a patient apart
        assert not {film["patient"] for film in rest.films} & {film["patient"] for film in held.films}
        assert ids(hold_out(pool, 3, seed=1)[1]) == ids(held)
        assert len({tuple(ids(hold_out(pool, 3, seed)[1])) for seed in range(5)}) > 1

    def test_at_most_a_tenth_and_the_weights_go_along(self, tmp_path: Path) -> None:
        own = datalist(tmp_path / "own", {"training": {f"f{index:02d}": {} for index in range(20)}})
        pool = pretraining_pool(None, {"path": own, "weight": 2})
        rest, held = hold_out(pool, 16)
        assert (len(rest.films), len(held.films)) == (18, 2)
        assert rest.weights is not None and len(rest.weights) == 18 and rest.conditions == pool.conditions
        assert hold_out(pool, 0)[1].films == []


class TestWeights:
    def test_weights_are_shares_of_sources(self, ceph: Path, chest: Path) -> None:
        pool = pretraining_pool(ceph, [{"path": chest, "weight": 3}])
        assert pool.weights == pytest.approx([0.25 / 4] * 4 + [0.75 / 3] * 3)

    def test_the_sampler_draws_them(self, ceph: Path, chest: Path) -> None:
        pool = pretraining_pool(ceph, [{"path": chest, "weight": 3}])
        sampler = DrawSampler(len(pool.films), 700, weights=pool.weights)
        drawn = np.bincount([draw.item for draw in sampler], minlength=7)
        assert drawn == pytest.approx(700 * np.array(pool.weights or []), abs=2)


def test_the_identical_files_among_real_films(shared_data: Path) -> None:
    """Three pairs; that of the adult films is stated by their source."""
    pool = pretraining_pool(None, shared_data / "chest_unlabelled", condition_on="source")
    assert [Path(entry.film).stem for entry in pool.left_out] == [
        "00002658_002",
        "person1430_bacteria_3696",
        "person1619_bacteria_4268",
    ]
    assert len(pool.films) == 1683 - 3
