"""A Ray cluster of two nodes on this machine, one of which is killed half way."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from monai_landmark.study.engines import study_engine
from monai_landmark.study.runner import run_tasks
from monai_landmark.study.tasks import WORK, Task

STEPS = 12
# A training in small: it goes on from its checkpoint, and says at which step it is.
TRAINING = """
import json, pathlib, time
folder = pathlib.Path(r'{folder}'); folder.mkdir(parents=True, exist_ok=True)
state = folder / 'checkpoint.json'
step = json.loads(state.read_text()) if state.exists() else 0
for step in range(step, {steps}):
    with open(folder / 'steps.txt', 'a') as log: log.write(f'{{step}} ')
    time.sleep(0.25)
    state.write_text(json.dumps(step + 1))
"""


@pytest.mark.slow
def test_jobs_of_a_lost_node_go_on_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="install the extra [study]")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    tasks = []
    for name in ("a", "b", "c"):
        text = TRAINING.format(folder=f"{WORK}/cells/{name}/model", steps=STEPS)
        tasks.append(Task(f"cells/{name}", (("timeit", "-n1", "-r1", *text.strip().splitlines()),)))
    engine = study_engine("ray", address=cluster.address, processors=1)
    assert engine.workers == 2
    outcomes: list = []
    study = threading.Thread(target=lambda: outcomes.extend(run_tasks(tasks, str(tmp_path), engine, say=print)))
    try:
        study.start()
        deadline = time.monotonic() + 180
        while not all((tmp_path / f"cells/{name}/model/checkpoint.json").exists() for name in "ab"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        cluster.remove_node(nodes[0], allow_graceful=False)
        study.join(timeout=240)
        assert not study.is_alive()
    finally:
        engine.close()
        cluster.shutdown()
    assert [outcome.error for outcome in outcomes] == ["", "", ""]
    for name in ("a", "b", "c"):
        done = [int(step) for step in (tmp_path / f"cells/{name}/model/steps.txt").read_text().split()]
        assert sorted(set(done)) == list(range(STEPS)) and len(done) <= STEPS + 1  # at most the broken step twice
