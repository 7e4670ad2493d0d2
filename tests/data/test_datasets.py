"""Adapters: the layouts of the public data sets become datalists without leaks."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from film_folder import annotation, ids, item, must_save, points, save_film

from monai_landmark.data.annotations import write_dha, write_isbi, write_ratio
from monai_landmark.data.datalist import landmarks_array
from monai_landmark.data.datasets import prepare_chest6, prepare_dha, prepare_isbi2015
from monai_landmark.data.datasets.chest6 import EXCLUDED
from monai_landmark.data.datasets.collect import mean_of_readers, rescale
from monai_landmark.data.datasets.films import bare_name
from monai_landmark.data.datasets.split import Fractions, split_by_rank
from monai_landmark.errors import AnnotationError, ConfigurationError
from monai_landmark.files import file_sha256

# --- splits ---------------------------------------------------------------------------------------------------------


def test_fractions_depend_on_seed_and_patients_alone() -> None:
    people = [f"p{n}" for n in range(50)]
    split = Fractions(0.2, 0.1).divide(people)
    assert split == Fractions(0.2, 0.1).divide([*people[::-1], *people])
    assert sorted(split.values()).count("test") == 10 and list(split.values()).count("validation") == 5
    assert split != Fractions(0.2, 0.1, seed=1).divide(people)


def test_a_small_set_still_has_a_test_patient() -> None:
    assert sorted(Fractions(0.1).divide(["a", "b"]).values()) == ["test", "training"]


@pytest.mark.parametrize(("test", "validation"), [(0.6, 0.5), (1.0, 0), (-0.1, 0), (float("nan"), 0)])
def test_impossible_fractions(test: float, validation: float) -> None:
    with pytest.raises(ConfigurationError, match="cannot be divided"):
        Fractions(test, validation).divide(["a", "b", "c"])


def test_one_patient_cannot_be_tested_and_trained_on() -> None:
    with pytest.raises(ConfigurationError, match="1 annotated patients"):
        Fractions().divide(["a", "a"])


def test_split_by_rank_is_by_name() -> None:
    assert split_by_rank(["c", "a", "d", "b"], 2, 1) == dict(a="training", b="training", c="validation", d="test")


def test_rescale_keeps_the_edges_of_the_film() -> None:
    corners = np.array([[-0.5, -0.5], [99.5, 199.5], [49.5, 99.5]])
    np.testing.assert_allclose(rescale(corners, (200, 100), (50, 80)), [[-0.5, -0.5], [79.5, 49.5], [39.5, 24.5]])


def test_mean_of_readers_has_no_landmark_that_one_lacks() -> None:
    a, b = np.array([[1.0, 2], [np.nan, np.nan]]), np.array([[3.0, 6], [1, 1]])
    np.testing.assert_array_equal(mean_of_readers({"a": a, "b": b}), [[2, 4], [np.nan, np.nan]])


def test_bare_name_takes_off_film_suffixes_only() -> None:
    assert [bare_name(n) for n in ("a.nii.gz", "1.2.840.5", "x.y.PNG", "z")] == ["a", "1.2.840.5", "x.y", "z"]


# --- ISBI 2015 ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def isbi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("isbi")
    for number in (1, 130, 131, 150, 151, 300, 301, 400):
        name = f"{number:03d}"
        save_film(folder / "RawImage" / f"{name}.jpg", number, (2400, 1935))
        for offset, reader in enumerate(("senior", "junior")):
            marks = annotation(name, points(number, 19, (2400, 1935)) + offset)
            write_isbi(folder / "AnnotationsByMD" / f"400_{reader}", [marks])
    (folder / "AnnotationsByMD" / "400_junior" / "300.txt").write_text("1,2\n")
    (folder / "RawImage" / "400.jpg").write_bytes(b"")
    return folder


def test_isbi_challenge_split_readers_and_faults(isbi: Path, tmp_path: Path) -> None:
    found = prepare_isbi2015(isbi)
    assert ids(found, "training") == ["001", "130", "131", "150"] and ids(found, "test") == ["151", "301"]
    assert [entry["subset"] for entry in found.sections["test"]] == ["test1", "test2"]
    assert {Path(entry.film).stem for entry in found.left_out} == {"300", "400"}
    assert {entry.by for entry in found.left_out} == {"fault"}
    one = item(found, "131")
    np.testing.assert_allclose(landmarks_array(one), points(131, 19, (2400, 1935)) + 0.5)
    np.testing.assert_allclose(landmarks_array(one, "junior"), points(131, 19, (2400, 1935)) + 1)
    assert one["spacing"] == [0.1, 0.1] and one["spacing_source"] == "user" and one["size"] == [2400, 1935]
    assert one["sha256"] == file_sha256(isbi / one["image"])
    assert any("published" in note for note in found.notes)
    must_save(found, tmp_path)


def test_isbi_papers_split_and_one_reader(isbi: Path) -> None:
    found = prepare_isbi2015(isbi, reader="senior", split="papers", spacing_mm=(0.2, 0.3))
    sections = [ids(found, section) for section in ("training", "validation", "test")]
    assert sections == [["001", "130"], ["131", "150"], ["151", "301"]]
    np.testing.assert_allclose(landmarks_array(item(found, "001")), points(1, 19, (2400, 1935)))
    assert item(found, "001")["spacing"] == [0.2, 0.3]


def test_isbi_published_spacing_is_not_given_to_resized_films(isbi: Path, tmp_path: Path) -> None:
    for reader in ("senior", "junior"):
        target = tmp_path / f"400_{reader}" / "001.txt"
        target.parent.mkdir()
        target.write_text((isbi / "AnnotationsByMD" / f"400_{reader}" / "001.txt").read_text())
    save_film(tmp_path / "001.png", 1, (1200, 968))
    with pytest.raises(AnnotationError, match="published spacing does not hold"):
        prepare_isbi2015(tmp_path)


def test_isbi_needs_both_readers_and_each_film_once(isbi: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="400_senior"):
        prepare_isbi2015(isbi / "RawImage")
    for reader in ("senior", "junior"):
        (tmp_path / f"400_{reader}").mkdir()
    with pytest.raises(ConfigurationError, match="no films"):
        prepare_isbi2015(tmp_path)
    save_film(tmp_path / "a" / "001.png", 0), save_film(tmp_path / "b" / "001.jpg", 0)
    with pytest.raises(ConfigurationError, match="comes twice"):
        prepare_isbi2015(tmp_path)


# --- Digital Hand Atlas ---------------------------------------------------------------------------------------------


def test_dha_spacing_rules(tmp_path: Path) -> None:
    rows = []
    for name in ("3001", "3002"):
        save_film(tmp_path / "images" / f"{name}.png", int(name), (100, 60))
        marks = points(int(name), 37, (200, 120))
        marks[0], marks[4] = (10, 10), (40, 50)  # 50 px apart: 1 mm/px at the original size
        rows.append(annotation(name, marks))
    write_dha(tmp_path / "all.csv", rows)
    header = "file,id,orig_width,orig_height,width,height,orig_mm_per_px_mha_header\n"
    lines = [f"images/{row.film}.png,{row.film},120,200,60,100,0.5\n" for row in rows]
    (tmp_path / "manifest.csv").write_text(header + "".join(lines))
    wrist = prepare_dha(tmp_path, spacing_rule="wrist50", split="fractions", fractions=Fractions(0.5))
    assert item(wrist, "3001")["spacing"] == [2.0, 2.0] and item(wrist, "3001")["spacing_source"] == "user"
    stated = prepare_dha(tmp_path, spacing_rule="header", split="fractions")
    assert item(stated, "3001")["spacing"] == [1.0, 1.0]
    assert item(stated, "3001")["spacing_source"] == "uncalibrated"
    np.testing.assert_allclose(landmarks_array(item(stated, "3002")), (rows[1].landmarks + 0.5) / 2 - 0.5, atol=1e-4)
    given = prepare_dha(tmp_path, spacing_mm=(0.3, 0.4), split="fractions")
    assert item(given, "3001")["spacing"] == [0.3, 0.4]
    with pytest.raises(ConfigurationError, match="wrist50"):
        prepare_dha(tmp_path)
    assert len(ids(prepare_dha(tmp_path, spacing_rule="wrist50"), "training")) == 2
    must_save(wrist, tmp_path)


def test_dha_unannotated_films_are_unlabelled_and_resized_ones_refused(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        save_film(tmp_path / f"{number}.png", number)
    write_dha(tmp_path / "all.csv", [annotation(n, points(int(n), 37)) for n in ("1", "2")])
    (tmp_path / "manifest.csv").write_text("id,orig_width,orig_height,width,height\n1,96,120,48,61\n")
    found = prepare_dha(tmp_path, spacing_mm=(0.1, 0.1))
    assert (ids(found, "training"), ids(found, "unlabelled")) == (["2"], ["3"])
    assert "manifest" in found.left_out[0].reason and found.left_out[0].film == "1.png"


def test_dha_sample(shared_data: Path, tmp_path: Path) -> None:
    found = prepare_dha(shared_data / "hand", spacing_rule="wrist50")
    assert [len(ids(found, section)) for section in ("training", "test")] == [5, 4] and not found.left_out
    with (shared_data / "hand" / "manifest.csv").open() as stream:
        manifest = {row["id"]: row for row in csv.DictReader(stream)}
    for _, entry in found.items():
        row = manifest[entry["id"]]
        scale = float(row["orig_height"]) / float(row["height"])
        expected = float(row["orig_mm_per_px_wrist50_convention"]) * scale
        assert entry["spacing"][0] == pytest.approx(expected, rel=1e-5)
        wrist = (landmarks_array(entry)[4] - landmarks_array(entry)[0]) * entry["spacing"][::-1]
        assert np.hypot(*wrist) == pytest.approx(50, abs=1e-3)
    must_save(found, tmp_path)


# --- chest ----------------------------------------------------------------------------------------------------------


def test_chest_shenzhen_layout(tmp_path: Path) -> None:
    names = [f"CHNCXR_{n:04d}_0" for n in range(1, 6)]
    for seed, name in enumerate([*names, "CHNCXR_0059_0", "CHNCXR_0009_0"]):
        save_film(tmp_path / "pngs" / f"{name}.png", seed)
    sizes = dict.fromkeys([*names, "CHNCXR_0059_0"], (60, 48))
    write_ratio(tmp_path / "labels", [annotation(n, points(1, 6)) for n in sizes], film_sizes=sizes)
    found = prepare_chest6(tmp_path)
    assert ids(found, "training") == names and item(found, names[0])["spacing"] is None
    np.testing.assert_allclose(landmarks_array(item(found, names[0])), points(1, 6), atol=1e-4)
    assert {(Path(e.film).stem, e.by) for e in found.left_out} == {("CHNCXR_0059_0", "rule"), ("CHNCXR_0009_0", "rule")}
    assert len(EXCLUDED) == 9
    halves = prepare_chest6(tmp_path, split="fractions", fractions=Fractions(0.4))
    assert [len(ids(halves, section)) for section in ("training", "test")] == [3, 2]
    must_save(found, tmp_path)


def test_chest_needs_a_known_layout(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="labels"):
        prepare_chest6(tmp_path)
    (tmp_path / "manifest.csv").write_text("id,orig_width,orig_height,width,height\n")
    with pytest.raises(ConfigurationError, match="no published split"):
        prepare_chest6(tmp_path, split="papers")


def small_chest(source: Path, target: Path) -> None:
    """The first films of the real set, as links."""
    with (source / "manifest.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    # one film with its lung cut, and several films of one patient
    chosen = [*rows[:8], next(r for r in rows if r["right_lung_touches_border"] == "1")]
    (target / "images").mkdir(parents=True)
    for row in chosen:
        (target / row["file" if "file" in row else "image"]).symlink_to(source / row["image"])
    with (target / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader(), writer.writerows(chosen)
    (target / "landmarks_extremes6_origpx.csv").symlink_to(source / "landmarks_extremes6_origpx.csv")


def test_chest_sample_with_unlabelled_films_of_the_same_patients(shared_data: Path, tmp_path: Path) -> None:
    small_chest(shared_data / "chest", tmp_path / "chest")
    found = prepare_chest6(tmp_path / "chest")
    assert [len(ids(found, section)) for section in ("training", "test")] == [6, 2]
    assert [entry.by for entry in found.left_out] == ["rule"] and "border" in found.left_out[0].reason
    for _, entry in found.items():
        marks = landmarks_array(entry)
        # right lung (left in the picture), top above bottom, lateral outside
        assert (marks[:3, 0].mean() < marks[3:, 0].mean()) and (marks[0, 1] < marks[1, 1])
        assert (
            (marks >= -0.5).all() and (marks[:, 0] < entry["size"][1]).all() and (marks[:, 1] < entry["size"][0]).all()
        )
    # unlabelled films: one of a training patient, one of a test patient, one of neither
    train, test = (found.sections[section][0]["patient"] for section in ("training", "test"))
    for seed, name in enumerate(("a", "b", "c")):
        save_film(tmp_path / "more" / f"{name}.png", seed)
    (tmp_path / "more" / "manifest.csv").write_text(
        f"file,patient_group\na.png,{train}\nb.png,{test}\nc.png,somebody\n"
    )
    again = prepare_chest6(tmp_path / "chest", unlabelled=tmp_path / "more")
    assert ids(again, "unlabelled") == ["unlabelled/a", "unlabelled/c"]
    assert [entry.by for entry in again.left_out if entry.film.endswith("b.png")] == ["rule"]
    must_save(again, tmp_path)
