"""Jobs: their commands, their order, what is done stays done, and what fails stops only what needs it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from monai_landmark.errors import ConfigurationError
from monai_landmark.study import tasks as module
from monai_landmark.study.engines import LocalEngine, study_engine
from monai_landmark.study.runner import run_tasks
from monai_landmark.study.tasks import WORK, Outcome, Task, run_task, study_tasks

APPEND = ("timeit", "-n1", "-r1")  # a module that runs a line of Python


def line(text: str) -> tuple[str, ...]:
    return (*APPEND, text)


def note(name: str, file: str = "runs.txt") -> tuple[str, ...]:
    """A command that leaves a trace each time it runs."""
    return line(f"open(r'{WORK}/{file}', 'a').write('{name} ')")


def options(command: tuple[str, ...]) -> dict[str, str]:
    words = command[command.index("--config_file") :]
    return dict(zip((word[2:] for word in words[::2]), words[1::2], strict=True))


class TestCommands:
    def test_every_row_gets_the_same_training_but_for_its_start(self, make_study) -> None:
        study = make_study(train={"epochs": 3, "spatial_size": [64, 48]}, validation_share=0.2)
        by_name = {task.name: task for task in study_tasks(study)}
        ours = options(by_name["cells/own/5/better/full/s1"].commands[0])
        theirs = options(by_name["cells/own/5/random/full/s1"].commands[0])
        assert {key for key in ours if ours[key] != theirs[key]} == {"output_dir"}
        assert ours["label_budget"] == "5" and ours["validation_films"] == "1" and ours["seed"] == "1"
        assert ours["spatial_size"] == "[64, 48]" and ours["epochs"] == "3"
        measured = options(by_name["cells/own/5/better/full/s1"].commands[-1])
        assert measured["model_dir"] == ours["output_dir"] and measured["section"] == "test"

    def test_one_pretraining_serves_all_cells_of_its_row(self, make_study) -> None:
        starts = {"random": {}, "ddpm": {"architecture": "diffusion-tiny", "pretrain": {"objective": "flow"}}}
        found = study_tasks(make_study(initializations=starts, pretrain={"epochs": 2, "objective": "ddpm"}))
        before = [task for task in found if task.kind == "pretrained"]
        assert [task.name for task in before] == ["pretrained/own/ddpm"]
        assert options(before[0].commands[0])["objective"] == "flow" and options(before[0].commands[0])["epochs"] == "2"
        cells = [task for task in found if "/ddpm/" in task.name]
        assert len(cells) == 4 and all(task.needs == ("pretrained/own/ddpm",) for task in cells)
        start = options(cells[0].commands[0])["initialization"]
        assert start == f"{WORK}/pretrained/own/ddpm/model.safetensors"
        assert all(found.index(before[0]) < found.index(task) for task in cells)

    def test_stages_go_on_from_each_other_and_the_last_is_measured(self, make_study) -> None:
        study = make_study(stages=[{"epochs": 1}, {"epochs": 2, "spatial_size": [9, 9]}], modes=["full", "frozen"])
        by_name = {task.name: task for task in study_tasks(study)}
        first, second, third, measure = map(options, by_name["cells/own/5/random/full/s0"].commands)
        assert second["initialization"] == first["output_dir"] + "/model.safetensors"
        assert third["initialization"] == second["output_dir"] + "/model.safetensors"
        assert third["spatial_size"] == "[9, 9]" and measure["model_dir"] == third["output_dir"]
        assert len(by_name["cells/own/5/random/frozen/s0"].commands) == 2

    def test_a_budget_may_have_trainings_of_its_own(self, make_study) -> None:
        longer = {"train": {"epochs": 9}, "stages": [{"epochs": 7}]}
        study = make_study(train={"epochs": 3, "sigma_px": 2}, stages=[{"epochs": 1}], by_budget={"all": longer})
        by_name = {task.name: task for task in study_tasks(study)}
        few, many = (by_name[f"cells/own/{labels}/random/full/s0"].commands for labels in (5, "all"))
        assert [options(command)["epochs"] for command in few[:2]] == ["3", "1"]
        assert [options(command)["epochs"] for command in many[:2]] == ["9", "7"]
        assert all(options(command)["sigma_px"] == "2" for command in (*few[:2], *many[:2]))

    def test_a_network_teaches_its_next_stage(self, make_study) -> None:
        study = make_study(stages=[{"epochs": 2, "self_taught": True}])
        by_name = {task.name: task for task in study_tasks(study)}
        first, teach, second, measure = map(options, by_name["cells/own/5/random/full/s0"].commands)
        assert teach["model_dir"] == first["output_dir"] and teach["section"] == "training"
        assert second["pseudo_labels"] == teach["output_dir"] and "self_taught" not in second
        assert second["initialization"] == first["output_dir"] + "/model.safetensors" and second["epochs"] == "2"
        assert measure["model_dir"] == second["output_dir"] and "pseudo_labels" not in first
        every_label = by_name["cells/own/all/random/full/s0"].commands  # nobody is left to predict
        assert len(every_label) == 3 and "pseudo_labels" not in options(every_label[1])

    def test_folds_are_made_once_and_each_cell_sees_its_own(self, make_study) -> None:
        datasets = {"own": {"datalist": "a.json"}, "hand": {"datalist": "b.json", "folds": 2}}
        starts = {"random": {}, "shape": {"baseline": "mean_shape"}, "own": {"source": "own"}}
        by_name = {task.name: task for task in study_tasks(make_study(datasets=datasets, initializations=starts))}
        (made,) = (task for task in by_name.values() if task.kind == "folds")
        assert made.commands[0][1:] == ("--datalist", "b.json", "--folds", "2", "--output_dir", f"{WORK}/folds/hand")
        cell = by_name["cells/hand/all/own/full/s1"]
        assert cell.needs == ("folds/hand", "sources/own/own")
        assert options(cell.commands[0])["initialization"] == f"{WORK}/sources/own/own/model.safetensors"
        assert [options(command)["datalist"] for command in cell.commands] == [f"{WORK}/folds/hand/1.json"] * 2
        shape = by_name["cells/hand/all/shape/full/s0"].commands[0]
        assert f"{WORK}/folds/hand/0.json" in shape and made.name in by_name["cells/hand/all/shape/full/s0"].needs

    def test_a_source_is_trained_once_with_all_its_labels(self, make_study) -> None:
        datasets = {"own": {"datalist": "a.json"}, "hand": {"datalist": "b.json", "train": {"epochs": 7}}}
        starts = {"random": {}, "hand": {"source": "hand", "start": "imagenet"}}
        found = study_tasks(make_study(datasets=datasets, initializations=starts, target=["own"]))
        (before,) = (task for task in found if task.kind == "sources")
        keys = options(before.commands[0])
        assert keys["label_budget"] == "0" and keys["datalist"] == "b.json" and keys["initialization"] == "imagenet"
        assert keys["epochs"] == "7"
        cell = next(task for task in found if task.kind == "cells" and "/hand/" in task.name)
        assert cell.needs == (before.name,)
        assert options(cell.commands[0])["initialization"] == keys["output_dir"] + "/model.safetensors"

    def test_a_row_learns_from_what_its_teacher_predicts_on_the_training_films(self, make_study) -> None:
        starts = {"shape": {"baseline": "mean_shape"}, "first": {"teacher": "shape"}, "second": {"teacher": "first"}}
        found = study_tasks(make_study(initializations=starts, budgets=[5, 0], modes=["full", "frozen"]))
        by_name = {task.name: task for task in found}
        assert not any("/all/first/" in name or "/all/second/" in name for name in by_name)  # nothing left to teach
        first, second = (by_name[f"cells/own/5/{row}/full/s1"] for row in ("first", "second"))
        teaching, training, _ = second.commands
        assert options(teaching)["model_dir"] == f"{WORK}/{first.name}/model"
        assert options(teaching)["section"] == "training"
        assert options(training)["pseudo_labels"] == options(teaching)["output_dir"] == f"{WORK}/{second.name}/teacher"
        assert second.needs == (first.name,) and first.needs == ("cells/own/5/shape/full/s1",)
        assert found.index(first) < found.index(second)
        words = first.commands[0]
        assert words[:2] == ("monai_landmark.study.measure", "mean_shape") and "training" in words
        assert by_name["cells/own/5/second/frozen/s1"].needs == (first.name,)

    def test_films_chosen_by_select_are_labelled_first_in_every_row(self, make_study, tmp_path: Path) -> None:
        (tmp_path / "order.csv").write_text("film,rank\n")
        own = {"datalist": str(tmp_path / "datalist.json"), "label_order": str(tmp_path / "order.csv")}
        starts = {"shape": {"baseline": "mean_shape"}, "random": {}}
        found = study_tasks(make_study(datasets={"own": own}, initializations=starts))
        for task in found:
            words = task.commands[0]
            assert words[words.index("--label_order") + 1] == own["label_order"] and own["label_order"] in task.inputs

    def test_a_baseline_is_measured_and_not_trained(self, make_study) -> None:
        found = study_tasks(make_study(initializations={"shape": {"baseline": "mean_shape"}}))
        assert all(len(task.commands) == 1 and "mean_shape" in task.commands[0] for task in found)


class TestRun:
    def test_what_is_done_is_not_done_again(self, tmp_path: Path) -> None:
        task = Task("cells/a", (note("one"), note("two")))
        first, again = run_task(task, str(tmp_path)), run_task(task, str(tmp_path))
        assert (tmp_path / "runs.txt").read_text() == "one two " and not first.error and again == Outcome("cells/a")
        done = json.loads((tmp_path / "cells/a/done.json").read_text())
        assert done["seconds"] > 0 and done["commands"][0][-1].count(str(tmp_path)) == 1

    def test_a_job_that_stopped_half_way_is_started_again(self, tmp_path: Path) -> None:
        task = Task("cells/a", (note("one"), line(f"open(r'{WORK}/wanted').close()")))
        failed = run_task(task, str(tmp_path))
        assert "exit code 1" in failed.error and "FileNotFoundError" in (tmp_path / "cells/a/log.txt").read_text()
        (tmp_path / "wanted").touch()
        assert not run_task(task, str(tmp_path)).error and (tmp_path / "runs.txt").read_text() == "one one "

    @pytest.mark.parametrize("stopped", [False, True])
    def test_other_settings_do_not_take_over_a_folder(self, tmp_path: Path, stopped: bool) -> None:
        run_task(Task("cells/a", (note("one"),)), str(tmp_path))
        if stopped:
            (tmp_path / "cells/a/done.json").unlink()
        found = run_task(Task("cells/a", (note("other"),)), str(tmp_path))
        assert "other settings" in found.error and (tmp_path / "runs.txt").read_text() == "one "

    def test_other_films_or_defaults_are_noticed_and_comments_are_not(self, tmp_path: Path) -> None:
        films, config = tmp_path / "films.json", tmp_path / "train.yaml"
        films.write_text("1")
        config.write_text("epochs: 3 # few\n")
        task = Task("cells/a", (note("one"),), (), (str(films), str(config)))
        before = task.identity()
        config.write_text("epochs: 3 # many\n")
        assert task.identity() == before
        config.write_text("epochs: 4\n")
        assert task.identity() != before
        config.write_text("epochs: 3\n")
        films.write_text("2")
        assert task.identity() != before

    def test_threads_are_those_asked_for(self, tmp_path: Path) -> None:
        command = line(f"import os; open(r'{WORK}/threads', 'w').write(os.environ['OMP_NUM_THREADS'])")
        run_task(Task("cells/a", (command,)), str(tmp_path), threads=3)
        assert (tmp_path / "threads").read_text() == "3"

    @pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")
    def test_a_command_that_outlived_its_study_is_waited_for(self, tmp_path: Path) -> None:
        """As after kill -9 of the study, or of a Ray worker: its command still trains."""
        slow = (
            f"import time; open(r'{WORK}/began', 'w').close(); time.sleep(3); open(r'{WORK}/runs.txt', 'a').write('x')"
        )
        task = Task("cells/a", (line(slow), line(f"open(r'{WORK}/at', 'w').write(open(r'{WORK}/runs.txt').read())")))
        ask = f"from monai_landmark.study.tasks import Task, run_task; run_task({task!r}, r'{tmp_path}')"
        study = subprocess.Popen([sys.executable, "-c", ask])
        while not (tmp_path / "began").exists():
            time.sleep(0.02)
        study.kill()
        study.wait()
        assert not run_task(task, str(tmp_path)).error
        assert (tmp_path / "at").read_text() == "xx"  # not before the first had ended

    def test_an_absent_input_is_said(self, tmp_path: Path) -> None:
        found = run_task(Task("cells/a", (note("one"),), (), (str(tmp_path / "none.json"),)), str(tmp_path))
        assert "no such file" in found.error and not (tmp_path / "runs.txt").exists()


class TestRunner:
    def test_order_failure_and_progress(self, tmp_path: Path) -> None:
        bad = line("raise ValueError('no')")
        found = [
            Task("pretrained/good", (note("good"),)),
            Task("pretrained/bad", (bad,)),
            Task("cells/on-good", (note("on-good"),), ("pretrained/good",)),
            Task("cells/on-bad", (note("on-bad"),), ("pretrained/bad",)),
            Task("cells/alone", (note("alone"),)),
        ]
        said: list[str] = []
        outcomes = run_tasks(found, str(tmp_path), LocalEngine(2), say=said.append)
        assert [one.name for one in outcomes] == [task.name for task in found]
        assert [bool(one.error) for one in outcomes] == [False, True, False, True, False]
        ran = (tmp_path / "runs.txt").read_text().split()
        assert sorted(ran) == ["alone", "good", "on-good"] and ran.index("good") < ran.index("on-good")
        assert "pretrained/bad" in outcomes[3].error and len(said) == 5 and said[-1].startswith("5 of 5")
        again = run_tasks(found, str(tmp_path), LocalEngine(1), say=said.append)
        assert [bool(one.error) for one in again] == [bool(one.error) for one in outcomes]
        assert (tmp_path / "runs.txt").read_text().split() == ran

    def test_no_more_at_once_than_there_are_workers(self, monkeypatch, tmp_path: Path) -> None:
        running, most, lock = 0, 0, threading.Event()

        def job(task: Task, work: str, threads: int) -> Outcome:
            nonlocal running, most
            running += 1
            most = max(most, running)
            lock.wait(0.02)
            running -= 1
            return Outcome(task.name, seconds=90)

        monkeypatch.setattr("monai_landmark.study.runner.run_task", job)
        said: list[str] = []
        tasks = [Task(f"cells/{number}", ()) for number in range(9)]
        run_tasks(tasks, str(tmp_path), LocalEngine(3), say=said.append)
        assert most == 3 and "90 s" not in said[0] and "min left" in said[0] and "left" not in said[-1]

    def test_a_job_that_breaks_its_engine_is_an_outcome(self, tmp_path: Path) -> None:
        class Broken(LocalEngine):
            def submit(self, function, *args) -> Future:
                future: Future = Future()
                future.set_exception(RuntimeError("node lost"))
                return future

        (outcome,) = run_tasks([Task("cells/a", ())], str(tmp_path), Broken(), say=lambda _: None)
        assert outcome.error == "RuntimeError: node lost"


class TestEngines:
    def test_an_unknown_engine_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="no such engine"):
            study_engine("abacus")

    @pytest.mark.parametrize("name", ["ray", "slurm"])
    def test_a_missing_package_is_named(self, monkeypatch, name, tmp_path: Path) -> None:
        monkeypatch.setitem(module.sys.modules, {"ray": "ray", "slurm": "submitit"}[name], None)
        with pytest.raises(ConfigurationError, match="package is missing"):
            study_engine(name, **({"folder": str(tmp_path)} if name == "slurm" else {}))

    def test_slurm_through_submitit(self, tmp_path: Path) -> None:
        pytest.importorskip("submitit", reason="install the extra [study]")
        engine = study_engine("slurm", folder=str(tmp_path / "slurm"), cluster="local", workers=2, timeout_min=5)
        task = Task("cells/a", (note("one"),))
        (outcome,) = run_tasks([task], str(tmp_path), engine, say=lambda _: None)
        engine.close()
        assert not outcome.error and (tmp_path / "runs.txt").read_text() == "one "
