"""A finished model that is saved whole, and a training that is stopped and goes on as if it had not been."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from monai.data import list_data_collate
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.transforms import Compose, RandAdjustContrastd, RandGaussianNoised
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

from monai_landmark.engines import (
    DrawSampler,
    KeyedDataset,
    KeyedSteps,
    ModelSaver,
    TrainingStateSaver,
    file_sha256,
    image_and,
    save_model,
)
from monai_landmark.errors import WeightsError
from monai_landmark.networks import read_state_dict

if os.name != "nt":
    import resource


def spoil(file: Path, damage: str) -> None:
    """Cut a file, take it away, or turn one bit in the bytes of its largest tensor."""
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
        return
    if damage == "one bit":
        weight = torch.load(file, weights_only=True)["network"]["0.weight"]
        content[content.index(weight.numpy().tobytes())] ^= 1
    file.write_bytes(content[:3000] if damage == "truncated" else content)


class TestSaveModel:
    def test_three_files_that_agree(self, tmp_path):
        network = nn.Linear(2, 3)
        save_model(network, tmp_path / "model", {"schema": "isbi19"})
        card = json.loads((tmp_path / "model" / "model.json").read_text())
        assert card["schema"] == "isbi19" and card["version"]
        assert card["sha256"] == file_sha256(tmp_path / "model" / "model.safetensors")
        plain = torch.load(tmp_path / "model" / "model.pt", weights_only=True)
        safe = load_file(tmp_path / "model" / "model.safetensors")
        for weights in (plain, safe):
            assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())
        assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["model.json", "model.pt", "model.safetensors"]

    def test_channels_last_weights(self, tmp_path):
        network = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        save_model(network, tmp_path, {})
        assert torch.equal(read_state_dict(tmp_path / "model.safetensors")["weight"], network.weight)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite_are_not_saved(self, tmp_path, value):
        network = nn.Linear(2, 3)
        save_model(network, tmp_path, {})
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        with torch.no_grad():
            network.weight[1, 0] = value
        with pytest.raises(ValueError, match=r"not finite.*weight"):
            save_model(network, tmp_path, {})
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before

    @pytest.mark.parametrize("every_epoch", [True, False])
    def test_handler(self, tmp_path, every_epoch):
        network, seen = nn.Linear(1, 1), []
        trainer = Engine(lambda engine, batch: None)
        ModelSaver(lambda: network, tmp_path, {"seed": 1}, every_epoch).attach(trainer)
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda _: seen.append((tmp_path / "model.pt").exists()))
        trainer.run([0, 0], max_epochs=2)
        assert seen == [False, every_epoch]
        card = json.loads((tmp_path / "model.json").read_text())
        assert (card["steps"], card["seed"]) == (4, 1)


class Toy:
    """A small training with everything that the bundle's training has: keyed draws, drop-out, schedule, average."""

    def __init__(self, folder, epochs, seed=0, workers=0, epoch_level=False):
        torch.manual_seed(123)  # the initial weights; what follows must not depend on this generator
        self.network = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.3), nn.Conv2d(4, 1, 1)
        )
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=40)
        self.average = EMAHandler(self.network, momentum=0.1, handle_buffers="update")
        augment = Compose(
            [RandGaussianNoised("image", prob=0.5, std=0.1), RandAdjustContrastd("image", prob=0.5, gamma=(0.5, 2))]
        )
        generator = torch.Generator().manual_seed(7)
        films = [
            {"image": torch.rand(1, 8, 8, generator=generator), "target": torch.rand(1, 8, 8, generator=generator)}
            for _ in range(7)
        ]
        data = KeyedDataset(films, augment, seed)
        loader = DataLoader(data, 2, sampler=DrawSampler(7, 6, seed), collate_fn=list_data_collate, num_workers=workers)
        objects = {"network": self.network, "optimizer": optimizer, "schedule": schedule}
        saver = TrainingStateSaver({**objects, "average": self.average.ema_model}, folder / "checkpoint.pt")
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=epochs,
            train_data_loader=loader,
            network=self.network,
            optimizer=optimizer,
            loss_function=nn.MSELoss(),
            prepare_batch=image_and("target"),
            decollate=False,
            train_handlers=[
                saver,
                KeyedSteps(seed),
                LrScheduleHandler(schedule, epoch_level=epoch_level, print_lr=False),
                self.average,
            ],
        )

        def note(engine):
            self.losses.append(float(engine.state.output["loss"]))
            self.rates.append(optimizer.param_groups[0]["lr"])

        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, note)

    def run(self):
        torch.manual_seed(time.time_ns() % 1000)
        self.trainer.run()
        return self


class TestStopAndResume:
    @pytest.mark.parametrize("epoch_level", [False, True], ids=["schedule by step", "schedule by epoch"])
    @pytest.mark.parametrize("stop", [1, 3])
    def test_a_resumed_run_is_the_uninterrupted_one(self, tmp_path, stop, epoch_level):
        whole = Toy(tmp_path / "whole", 5, epoch_level=epoch_level).run()
        first = Toy(tmp_path / "stopped", stop, epoch_level=epoch_level).run()
        second = Toy(tmp_path / "stopped", 5, epoch_level=epoch_level).run()
        assert first.losses + second.losses == whole.losses
        assert first.rates + second.rates == whole.rates
        assert len(set(whole.losses)) == 15
        for ended, expected in ((second.network, whole.network), (second.average.ema_model, whole.average.ema_model)):
            weights = expected.state_dict()
            assert all(torch.equal(tensor, weights[name]) for name, tensor in ended.state_dict().items())
        assert second.trainer.state.iteration == 15 and second.trainer.state.epoch == 5

    def test_the_checkpoint_holds_the_last_step_of_everything(self, tmp_path):
        toy = Toy(tmp_path, 2, epoch_level=True).run()
        state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        assert (state["epoch"], state["iteration"]) == (2, 6)
        assert state["schedule"]["last_epoch"] == 2
        for name, network in (("network", toy.network), ("average", toy.average.ema_model)):
            weights = network.state_dict()
            assert all(torch.equal(tensor, weights[key]) for key, tensor in state[name].items())
        assert any(not torch.equal(state["network"][key], state["average"][key]) for key in state["network"])

    def test_a_finished_run_does_nothing_more(self, tmp_path):
        Toy(tmp_path, 2).run()
        again = Toy(tmp_path, 2).run()
        assert again.losses == [] and again.trainer.state.iteration == 6

    def test_without_resume_it_starts_anew(self, tmp_path):
        first = Toy(tmp_path, 1).run()
        other = Toy(tmp_path, 1)
        for handlers in other.trainer._event_handlers.values():
            for handler, _, _ in handlers:
                if isinstance(getattr(handler, "__self__", None), TrainingStateSaver):
                    handler.__self__.resume = False
        assert other.run().losses == first.losses

    def test_weights_that_are_not_finite_do_not_replace_a_good_checkpoint(self, tmp_path):
        toy = Toy(tmp_path, 1).run()
        before = (tmp_path / "checkpoint.pt").read_bytes()
        with torch.no_grad():
            toy.network[0].weight[0] = float("nan")
        saver = TrainingStateSaver({"network": toy.network}, tmp_path / "checkpoint.pt")
        with pytest.raises(ValueError, match="not finite"):
            saver(toy.trainer)
        assert (tmp_path / "checkpoint.pt").read_bytes() == before

    @pytest.mark.parametrize("damage", ["truncated", "one bit", "gone"])
    def test_a_damaged_checkpoint_is_told_and_the_one_before_taken(self, tmp_path, damage, caplog):
        whole = Toy(tmp_path / "whole", 5).run()
        Toy(tmp_path / "stopped", 3).run()
        file = tmp_path / "stopped" / "checkpoint.pt"
        spoil(file, damage)
        with caplog.at_level(logging.WARNING):
            again = Toy(tmp_path / "stopped", 5).run()
        assert again.losses == whole.losses[6:]  # from the second epoch on
        said = "is missing" if damage == "gone" else "is damaged"
        assert said in caplog.text and "going on from step 6 of" in caplog.text

    def test_what_a_killed_run_left_half_written_is_removed(self, tmp_path):
        (tmp_path / ".checkpoint.pt.0123456789abcdef.tmp").write_bytes(b"half")
        (tmp_path / ".other.pt.0123456789abcdef.tmp").write_bytes(b"another's")
        Toy(tmp_path, 1).run()
        assert sorted(file.name for file in tmp_path.iterdir()) == [".other.pt.0123456789abcdef.tmp", "checkpoint.pt"]

    @pytest.mark.parametrize("damage", ["truncated", "one bit"])
    def test_two_damaged_checkpoints_are_an_error(self, tmp_path, damage):
        Toy(tmp_path, 2).run()
        for name in ("checkpoint.pt", "previous_checkpoint.pt"):
            spoil(tmp_path / name, damage)
        with pytest.raises(WeightsError, match=r"checkpoint\.pt.*cannot go on"):
            Toy(tmp_path, 3).run()

    def test_a_checkpoint_of_another_network_is_named_and_not_passed_over(self, tmp_path):
        Toy(tmp_path, 2).run()
        torch.save({"network": nn.Linear(1, 1).state_dict(), "epoch": 1, "iteration": 3}, tmp_path / "checkpoint.pt")
        with pytest.raises(WeightsError, match=r"checkpoint\.pt.*cannot go on"):
            Toy(tmp_path, 3).run()

    @pytest.mark.skipif(os.name == "nt", reason="the limit on a file's size is POSIX")
    def test_a_full_disk_leaves_the_last_checkpoint(self, tmp_path):
        toy = Toy(tmp_path, 1).run()
        before = (tmp_path / "checkpoint.pt").read_bytes()
        saver = TrainingStateSaver({"network": toy.network}, tmp_path / "checkpoint.pt")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write fails as on a full disk
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
            with pytest.raises(WeightsError, match=r"could not be written.*make room"):
                saver(toy.trainer)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
        assert (tmp_path / "checkpoint.pt").read_bytes() == before
        assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint.pt"]

    def test_whatever_meets_a_full_disk_says_what_to_do(self, tmp_path):
        def log(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        toy = Toy(tmp_path, 3)
        toy.trainer.add_event_handler(Events.ITERATION_STARTED(once=5), log)
        with pytest.raises(WeightsError, match=r"No space left.*make room; the same command goes on from step 3"):
            toy.run()

    def test_ended_by_the_system_it_says_where_it_goes_on(self, tmp_path, caplog):
        before = signal.getsignal(signal.SIGTERM)
        whole = Toy(tmp_path / "whole", 3).run()
        assert signal.getsignal(signal.SIGTERM) == before
        toy = Toy(tmp_path / "ended", 3)
        toy.trainer.add_event_handler(Events.ITERATION_STARTED(once=5), lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with caplog.at_level(logging.WARNING), pytest.raises(SystemExit) as ended:
            toy.run()
        assert ended.value.code == 143 and signal.getsignal(signal.SIGTERM) == before
        assert "in step 5; the same command goes on from step 3" in caplog.text
        assert whole.losses[:3] + Toy(tmp_path / "ended", 3).run().losses == whole.losses

    def test_processes_other_than_the_first_do_not_write(self, tmp_path):
        trainer = Engine(lambda engine, batch: None)
        TrainingStateSaver({"network": nn.Linear(1, 1)}, tmp_path / "checkpoint.pt", save=False).attach(trainer)
        trainer.run([0])
        assert not (tmp_path / "checkpoint.pt").exists()
