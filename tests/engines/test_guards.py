"""A loss that is not finite stops a real trainer in the same step, with the weights as they were."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from monai.data import list_data_collate
from monai.engines import SupervisedTrainer
from torch import nn
from torch.utils.data import DataLoader

from monai_landmark.engines import NonFiniteLossGuard, image_and
from monai_landmark.errors import NonFiniteLossError
from monai_landmark.privacy import log_name


def trainer_on(values, network, guarded):
    films = [{"image": torch.full((1, 4, 4), v), "target": torch.zeros(1, 4, 4), "id": f"film{i}"} for i, v in values]
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=DataLoader(films, 2, collate_fn=list_data_collate),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=nn.MSELoss(),
        prepare_batch=image_and("target"),
        decollate=False,
        train_handlers=[NonFiniteLossGuard()] if guarded else [],
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("named", [False, True])
def test_stops_in_the_same_step_and_names_the_films(bad, named, monkeypatch):
    monkeypatch.setenv("MONAI_LANDMARK_LOG_NAMES", "1" if named else "0")
    values = list(enumerate([0.1, 0.2, 0.3, bad, 0.5, 0.6]))
    network = nn.Conv2d(1, 1, 3, padding=1)
    trainer = trainer_on(values, network, guarded=True)
    before = {}
    trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda _: before.update({n: p.clone() for n, p in network.state_dict().items()})
    )
    films = [log_name(f"film{number}") for number in (2, 3)]
    with pytest.raises(NonFiniteLossError, match=rf"step 2.*{films[0]}.*{films[1]}") as caught:
        trainer.run()
    assert ("film2" in str(caught.value)) == named
    assert "film0" not in str(caught.value) and "learning rate" in str(caught.value)
    assert trainer.state.iteration == 2
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]) and tensor.isfinite().all()


def test_without_the_guard_the_weights_are_ruined():
    network = nn.Conv2d(1, 1, 3, padding=1)
    trainer_on(list(enumerate([0.1, float("nan")])), network, guarded=False).run()
    assert network.weight.isnan().any()


def test_a_finite_run_is_left_alone():
    network = nn.Conv2d(1, 1, 3, padding=1)
    trainer = trainer_on(list(enumerate([0.1, 0.2, 0.3])), network, guarded=True)
    trainer.run()
    assert trainer.state.iteration == 2
