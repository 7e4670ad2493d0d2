"""Slices drawn by a pre-trained network are judged beside real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import create_workflow

from monai_landmark.data.synthetic_bodies import write_synthetic_bodies
from monai_landmark.engines import save_model
from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.generation.slices import draw_slices
from monai_landmark.pretraining import pretraining_objective
from monai_landmark.pretraining.trained import trained_objective

SAMPLE = Path(__file__).resolve().parents[2] / "bundles" / "ct_organs" / "configs" / "sample.yaml"
GRID = [16, 16]


def pretrained(folder: Path, name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    objective: Any = pretraining_objective(name, "diffusion-tiny", **options)
    with torch.no_grad():  # a network's last layer begins with zeros: it would say the same whatever it is told
        for weight in objective.network.parameters():
            weight += 0.02 * torch.randn(weight.shape)
    sources = [f"part {number}" for number in range(options.get("sources", 0))]
    card = {"spatial_size": GRID, "sources": sources, "darkest_hu": -160, "brightest_hu": 240}
    save_model(objective.network, folder, {**objective.describe(), **card})
    return objective.eval()


@pytest.mark.parametrize(
    ("name", "options"),
    [("ddpm", {"timesteps": 100, "schedule": "cosine"}), ("flow", {"timesteps": 50}), ("conditional", {"sources": 2})],
)
def test_objective_of_a_folder_draws_what_its_own_did(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    made, found = pretrained(tmp_path, name, **options), trained_objective(tmp_path)
    assert found.describe() == made.describe()
    drawn = [draw_slices(each, 2, GRID, [1, 2], steps=2) for each in (made, found)]
    torch.testing.assert_close(*drawn, rtol=0, atol=0)
    assert drawn[0].shape == (2, 1, *GRID) and drawn[0].abs().max() <= 1


def test_a_slice_depends_on_its_number_alone(tmp_path: Path) -> None:
    objective = pretrained(tmp_path, "ddpm", timesteps=100)
    three, two = draw_slices(objective, 3, GRID, steps=2), draw_slices(objective, 2, GRID, steps=2, batch_size=1)
    torch.testing.assert_close(three[:2], two, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(three, draw_slices(objective, 3, GRID, steps=2, seed=1))


def test_told_where_it_lies_a_slice_differs(tmp_path: Path) -> None:
    objective = pretrained(tmp_path, "conditional", sources=2)
    one, other = (draw_slices(objective, 1, GRID, [source], steps=2) for source in (1, 2))
    assert not torch.equal(one, other)


def test_what_draws_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing was pre-trained"):
        trained_objective(tmp_path)
    (tmp_path / "model.json").write_text('{"objective": "masked", "architecture": "mobilenetv3_small_050"}')
    with pytest.raises(ConfigurationError, match="draws nothing"):
        trained_objective(tmp_path)
    (tmp_path / "model.json").write_text('{"architecture": "diffusion-tiny"}')
    with pytest.raises(WeightsError):
        trained_objective(tmp_path)


def test_the_bundle_measures_drawn_slices_beside_real_ones(tmp_path: Path) -> None:
    bodies = write_synthetic_bodies(tmp_path / "bodies", 1, 1, 0, size=(24, 20, 10))
    pretrained(tmp_path / "model", "ddpm", timesteps=100)
    keys = {"datalist": str(bodies), "pretrained": str(tmp_path / "model"), "count": 8, "steps": 2, "patches": 1}
    judge = {"judge": "mobilenetv3_small_050", "judge_weights": "random", "device": "cpu"}
    workflow = create_workflow(
        config_file=str(SAMPLE), workflow_type="infer", run_id="sample", logging_file=False, **keys, **judge
    )
    workflow.run()
    report = json.loads((tmp_path / "model" / "drawn" / "fidelity.json").read_text())
    found = report["fidelity"]
    assert found["n"] == 8 and found["network"].startswith("mobilenetv3_small_050 ") and report["model"]
    assert {"fid", "sfid", "kid", "precision", "recall", "f1"} <= found.keys()
    assert found["fid"]["drawn"] > found["fid"]["reference"] > 0  # an untrained network draws noise
    assert (tmp_path / "model" / "drawn" / "drawn.png").is_file()
