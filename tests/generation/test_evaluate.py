"""A folder of drawn films, some of them copies, is judged from its files alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from monai_landmark.errors import ConfigurationError
from monai_landmark.files import file_sha256
from monai_landmark.generation.embedding import FilmEmbedder
from monai_landmark.generation.evaluate import FilmEvaluation


def write_films(folder, count, seed):
    """Smooth random structure in one common outline, as PNG."""
    folder.mkdir(parents=True)
    coarse = torch.randn(count, 1, 16, 14, generator=torch.Generator().manual_seed(seed))
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 48), indexing="ij")
    films = 0.5 - rows**2 / 2 - columns**2 / 2 + functional.interpolate(coarse, (48, 48), mode="bicubic") / 4
    items = []
    for index, film in enumerate(((films.clamp(-1, 1) + 1) * 127.5).byte()):
        path = folder / f"film{index}.png"
        Image.fromarray(film[0].numpy()).save(path)
        items.append({"image": str(path), "id": f"{folder.name}{index}", "patient": f"{folder.name}{index}"})
    return items


def write_manifest(folder, records):
    records = [{"image": str(item["image"]).removeprefix(f"{folder}/"), "class": "normal"} for item in records]
    facts = {"films": records, "spatial_size": [48, 48], "model_sha256": "0" * 64}
    (folder / "manifest.json").write_text(json.dumps(facts), encoding="utf-8")


class TestFilmEvaluation:
    @pytest.fixture(scope="class")
    def judge(self):
        torch.manual_seed(0)
        return FilmEmbedder("mobilenetv3_small_050", "random", (32, 32), patches=1)

    def test_copies_are_named_and_pictured(self, judge, tmp_path):
        training, others = write_films(tmp_path / "training", 16, 0), write_films(tmp_path / "others", 9, 1)
        drawn = write_films(tmp_path / "drawn" / "films", 8, 2)
        for copied, source in ((0, 3), (5, 11)):
            with Image.open(training[source]["image"]) as film:
                pale = np.asarray(film).astype(np.float32) * 0.6 + 40
            Image.fromarray(np.roll(pale, 1, axis=1).astype(np.uint8)).save(drawn[copied]["image"])
        write_manifest(tmp_path / "drawn", drawn)
        report = FilmEvaluation(tmp_path / "drawn", training, others, tmp_path / "out", judge).run()
        assert report == json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
        copies = report["copies"]["structure"]
        assert copies["copies"] == 2 and copies["drawn"] == 8 and report["classes"] == {"normal": 8}
        assert [copies["nearest"][index] for index in (0, 5)] == [
            file_sha256(training[index]["image"])[:16] for index in (3, 11)
        ]
        assert report["membership"]["structure"]["n"] == [16, 9]
        found = report["fidelity"]
        assert found["n"] == 8 and found["network"].startswith("mobilenetv3_small_050 ")
        assert {"fid", "sfid", "kid", "f1", "coverage"} <= found.keys() and found["fid"]["reference"] > 0
        for kind in ("structure", "features"):
            with Image.open(tmp_path / "out" / f"nearest_{kind}.png") as picture:
                assert picture.mode == "L"
        assert "training" not in (tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8").replace(
            "trained_on", ""
        )

    def test_too_few_films_are_refused(self, judge, tmp_path):
        drawn = write_films(tmp_path / "drawn" / "films", 2, 2)
        write_manifest(tmp_path / "drawn", drawn)
        with pytest.raises(ConfigurationError, match="too few films"):
            FilmEvaluation(tmp_path / "drawn", drawn, drawn[:1], tmp_path / "out", judge)
