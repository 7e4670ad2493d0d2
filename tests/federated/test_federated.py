"""The bundle as one site of a federation, and three sites in NVFlare's simulator; skipped where there is no NVFlare."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from monai_landmark.data.synthetic import write_synthetic_dataset
from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.networks import trained_network

pytest.importorskip("nvflare", reason="NVFlare is not installed (docs/how-to/federated.md)")

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "bundles" / "xray_landmarks"
SITES = ("site_a", "site_b", "site_c")
TINY = ["steps_per_epoch=2", "batch_size=2", "spatial_size=[64,64]", "precision=float32"]


@pytest.fixture(scope="module")
def client() -> Any:
    return importlib.import_module("monai_landmark.federated.client")


@pytest.fixture(scope="module")
def job() -> Any:
    return importlib.import_module("monai_landmark.federated.job")


def model(params: dict[str, Any]) -> Any:
    return SimpleNamespace(params=params, current_round=0)


class TestSettings:
    def settings(self, client: Any, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = client.settings_of(words, BUNDLE / "configs" / "train.yaml")
        return found

    def test_values_of_the_configuration(self, client: Any) -> None:
        found = self.settings(client, "seed=3", "learning_rate=0.01", "spatial_size=[64,32]", "initialization=random")
        assert found == {"seed": 3, "learning_rate": 0.01, "spatial_size": [64, 32], "initialization": "random"}

    @pytest.mark.parametrize(
        "word",
        [
            "seed=$__import__('os').getpid()",
            "initialization=@dataset_dir",
            "initialization=%other.yaml",
            'spatial_size=["$1",64]',
            'seed={"_target_":"os.system"}',
            "optimizer=random",
            "train#loss=random",
            "unheard_of=1",
        ],
    )
    def test_code_and_other_names_are_refused(self, client: Any, word: str) -> None:
        with pytest.raises(ConfigurationError, match="not code"):
            self.settings(client, word)

    def test_a_bundle_that_may_do_anything_is_refused(self, client: Any, tmp_path: Path) -> None:
        config = tmp_path / "train.yaml"
        config.write_text("seed: 0\nrun: \"$__import__('os').system('true')\"\n")
        with pytest.raises(ConfigurationError):
            client.settings_of(["seed=1"], config)


@pytest.mark.slow
def test_two_sites_average_by_hand(client: Any, tmp_path: Path) -> None:
    """Two rounds without NVFlare: a round starts from what came in, and the steps and the learning rate go on."""
    sites = []
    for number in range(2):
        films = tmp_path / f"films{number}"
        write_synthetic_dataset(films, training=3, test=1, unlabelled=0, seed=number, size=(200, 216))
        words = [*TINY, "architecture=diffusion-tiny", "epochs=2"]
        settings = client.settings_of(words, BUNDLE / "configs" / "train.yaml")
        out = str(tmp_path / f"out{number}")
        sites.append(client.site_algorithm("train", str(films), out, str(BUNDLE), 1, settings))
        sites[-1].initialize({"CLIENT_NAME": f"site{number}"})
    sent: dict[str, Any] = {}
    rates = []
    for _ in range(2):
        before = {name: np.array(weight) for name, weight in sent.items()}
        found = [client.round_of(site, model(sent)).params for site in sites]
        assert any(not np.array_equal(found[0][name], found[1][name]) for name in found[0])
        assert not before or any(not np.array_equal(found[0][name], before[name]) for name in before)
        sent = {name: (found[0][name] + found[1][name]) / 2 for name in found[0]}
        rates.append(sites[0].trainer.optimizer.param_groups[0]["lr"])
    assert rates[0] != rates[1] and sites[0].trainer.state.iteration == 4
    first = client.round_of(sites[0], model(sent))  # both start from the same weights, whatever they had
    assert first.params.keys() == sent.keys() and first.meta == {"NUM_STEPS_CURRENT_ROUND": 2}


@pytest.mark.slow
def test_three_sites_in_the_simulator(job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds of pre-training, and two of training from what came out of them."""
    for name, value in (("OMP_NUM_THREADS", "1"), ("CUDA_VISIBLE_DEVICES", ""), ("PYTHONPATH", str(ROOT))):
        monkeypatch.setenv(name, value)  # for the sites' processes
    for number, site in enumerate(SITES):
        folder = tmp_path / "films" / site
        write_synthetic_dataset(folder, training=3, test=1, unlabelled=3, seed=number, size=(200, 216 + 8 * number))
    start = tmp_path / "pretrain" / "model.safetensors"
    for stage, more in (
        ("pretrain", ["samples=0", "val_interval=1000"]),
        ("train", ["architecture=diffusion-tiny", f"initialization={start}"]),
    ):
        folders = (f"{tmp_path}/films/{{site}}", f"{tmp_path}/{stage}_{{site}}", BUNDLE)
        made = job.federated_job(stage, stage, 3, 2, 1, *folders, [*TINY, *more], sys.executable)
        made.export_job(str(tmp_path / "jobs"))
        saved = job.simulate(made, tmp_path / f"{stage}_run", SITES)
        held = {path.suffix for path in (tmp_path / "jobs" / stage).rglob("*") if path.is_file()}
        assert held == {".json"}  # values, no code
        job.federated_model(saved, tmp_path / f"{stage}_site_a", tmp_path / stage)
    weights = load_file(tmp_path / "train" / "model.safetensors")
    own = [load_file(tmp_path / f"train_{site}" / "model.safetensors") for site in SITES]
    assert all(weights.keys() == each.keys() for each in own)
    assert all(any(not torch.equal(weights[name], each[name]) for name in weights) for each in own)
    card = json.loads((tmp_path / "train" / "model.json").read_text())
    assert Path(card["initialization"]).name == start.name and "films" not in card
    assert card["shape"] is None and card["architecture"] == "diffusion-tiny"
    assert isinstance(trained_network(22, card["architecture"], tmp_path / "train"), torch.nn.Module)
    with pytest.raises(WeightsError, match="another network"):
        job.federated_model(saved, tmp_path / "pretrain_site_a", tmp_path / "wrong")
    logs = [path for path in tmp_path.glob("*_run/**/*") if path.suffix in (".txt", ".json", ".log")]
    said = "".join(path.read_text(errors="replace") for path in logs)
    assert logs and "synthetic-0001" not in said  # no film is named in what NVFlare writes
