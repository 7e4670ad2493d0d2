"""landmarker's ISBI 2015 recipe and the shipped one, all 150 labels, the same processor time, the same evaluation.

    export OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=268435456
    python benchmarks/landmarker_isbi.py --minutes 240                               # needs `pip install landmarker`
    python benchmarks/landmarker_isbi.py --minutes 240 --ours --weights efficientnet-lite0.pth
    python benchmarks/landmarker_isbi.py --table --json docs/results/landmarker_isbi.json

Minutes are the training process' own processor time, starting and reading films included, so that other programs on the
machine take nothing away. landmarker's training (`landmarker_recipe.py`) is stopped when they are spent. Ours follows a
one-cycle schedule, whose steps must be known before: `--ours` first times a few (`plan.json`), then makes both stages
of the shipped recipe longer or shorter alike; should they take longer than that, landmarker's training goes on when it
is called with as many `--minutes`. Both go on where they were stopped. Test1 is then predicted, by each in its own way,
and measured by the same code, on the film's own pixels. The MALLOC words let glibc keep large maps from step to step,
which took landmarker's from 17.5 to 15.1 processor seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ignite.engine import Engine, Events
from landmarker_grid import GRID
from landmarker_table import NAMES, records, table
from records import command, now

from monai_landmark.data.budget import labeled_films
from monai_landmark.data.datalist import Datalist, load_datalist
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.files import write_text
from monai_landmark.networks import landmark_network
from monai_landmark.results.evaluate import write_evaluation
from monai_landmark.study.grid import Study

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "bundles/xray_landmarks/configs"
RECIPE = ROOT / "benchmarks/isbi2015_budgets.yaml"  # the shipped one
TIMED_STEPS = 6
SPARE = 0.03  # of the time, for steps that take longer than those that were timed
INHERITED = ("architecture", "epochs", "steps_per_epoch", "spatial_size", "batch_size")  # keys of train.yaml

Facts = dict[str, Any]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datalist", type=Path, default=Path("runs/isbi2015/datalist.json"))
    parser.add_argument("--work", type=Path, default=Path("runs/landmarker"))
    parser.add_argument("--minutes", type=float, default=240.0, help="processor time to train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", default="imagenet", help="of --ours: ImageNet weights of tf_efficientnet_lite0")
    parser.add_argument("--json", type=Path, help="of --table: write the result records to this file")
    parser.add_argument("--ours", action="store_true", help="train and measure the shipped recipe")
    parser.add_argument("--plan", action="store_true", help="only time its steps and write how many there will be")
    parser.add_argument("--table", action="store_true", help="print both beside each other")
    return parser.parse_args()


def write_json(path: Path, content: Any) -> None:
    """Write a file of the work folder, whole or not at all."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def run_facts(args: argparse.Namespace, **own: Any) -> Facts:
    """What the table needs of a finished run."""
    return {
        "minutes": args.minutes,
        "seed": args.seed,
        **now(),
        **own,
    }


# ---- landmarker ----------------------------------------------------------------------------------------------------


def landmarker(args: argparse.Namespace) -> None:
    """Train landmarker's recipe for the minutes, predict Test1, measure."""
    import landmarker_recipe as recipe  # the rest does without the package

    folder = args.work / "landmarker"
    schema = LandmarkSchema.load(str(Datalist.load(args.datalist).schema))
    films = labeled_films(args.datalist, seed=args.seed)
    training = recipe.LandmarkerTraining(schema.count, args.seed, folder / "checkpoint.pt")
    spent = training.run(films, 60 * args.minutes)
    facts = run_facts(
        args,
        start="random",
        parameters=sum(weight.numel() for weight in training.network.parameters()),
        grids=[GRID],
        batch=1,
        steps=[training.steps],
        recipe_steps=[recipe.EPOCHS * len(films)],
        recipe_epochs=recipe.EPOCHS,
        step_s=[statistics.fmean(training.step_s)],
        processor_s=spent,
    )
    write_json(folder / "run.json", facts)
    results = [training.predict(item, schema) for item in load_datalist(args.datalist, "test")]
    card = {
        "initialization": "landmarker",
        "label_budget": len(films),
        "films": [film["id"] for film in films],
        "seed": args.seed,
    }
    write_evaluation(results, schema, card, args.datalist, "test", folder / "evaluation", command=command())


# ---- ours ----------------------------------------------------------------------------------------------------------


def stages(args: argparse.Namespace) -> list[Facts]:
    """Keys of ``train.yaml`` for each stage of the shipped recipe, with all labels."""
    default = yaml.safe_load((CONFIGS / "train.yaml").read_text(encoding="utf-8"))
    recipe = Study.load(RECIPE).for_budget(0)
    own = [recipe.train, *recipe.stages]
    keys = {"datalist": str(args.datalist), "seed": args.seed, "bundle_root": str(CONFIGS.parent)}
    shared = {key: default[key] for key in INHERITED}
    found, start = [], str(args.weights)
    for number, stage in enumerate(own, start=1):
        folder = args.work / "ours" / ("model" if number == len(own) else f"stage{number}")
        found.append({**shared, **keys, **stage, "initialization": start, "output_dir": str(folder)})
        start = str(folder / "model.safetensors")
    return found


class ProcessorClock:
    """Handler that keeps the processor seconds of every step, and those of the whole training over its processes.

    Args:
        path: a JSON file, written at the end of every epoch; a resumed run goes on from it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.step_s, self.earlier_s = path, list[float](), 0.0
        self.asked = time.process_time()
        if path is not None and path.is_file():
            state = json.loads(path.read_text(encoding="utf-8"))
            self.step_s, self.earlier_s = state["step_s"], state["processor_s"]

    @property
    def processor_s(self) -> float:
        """Processor seconds so far."""
        return self.earlier_s + time.process_time()

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._asks)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._stepped)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def _asks(self) -> None:
        self.asked = time.process_time()

    def _stepped(self) -> None:
        self.step_s.append(time.process_time() - self.asked)

    def save(self) -> None:
        """Write the file, if there is one."""
        if self.path is not None:
            write_json(self.path, {"step_s": self.step_s, "processor_s": self.processor_s})


def train(keys: Mapping[str, Any], clock: ProcessorClock) -> None:
    """One training by the bundle, in this process."""
    from monai.bundle import ConfigWorkflow

    workflow = ConfigWorkflow(
        str(CONFIGS / "train.yaml"), workflow_type="train", run_id="run", init_id="initialize", final_id="", **keys
    )
    workflow.initialize()
    clock.attach(workflow.parser.get_parsed_content("train#trainer"))
    workflow.run()


def planned_epoch_steps(minutes: float, start_s: Sequence[float], epoch_s: Sequence[float], per_epoch: int) -> int:
    """Steps of an epoch with which all stages end within the time.

    Args:
        minutes: of processor time.
        start_s: seconds of each stage before its first step.
        epoch_s: seconds that the recipe's steps of each stage take.
        per_epoch: steps of the recipe's epochs.

    Raises:
        SystemExit: if the time is too short for one step an epoch.
    """
    left = 60 * minutes * (1 - SPARE) - sum(start_s)
    steps = int(per_epoch * left / sum(epoch_s))
    if steps < 1:
        needed = (sum(start_s) + sum(epoch_s) / per_epoch) / (1 - SPARE) / 60
        raise SystemExit(f"{minutes} minutes are too short for the recipe's epochs, which need {needed:.1f}")
    return steps


def plan(args: argparse.Namespace) -> None:
    """Time a few steps of each stage, on all films; writes ``plan.json``."""
    start_s, step_s, began = [], [], 0.0  # the first stage also pays for this process' start
    recipe = stages(args)
    for keys in recipe:
        clock = ProcessorClock()
        with tempfile.TemporaryDirectory() as folder:
            short = {"epochs": 1, "steps_per_epoch": TIMED_STEPS, "output_dir": folder, "initialization": args.weights}
            train({**keys, **short}, clock)
        spent = time.process_time() - began
        start_s.append(spent - sum(clock.step_s))
        step_s.append(statistics.median(clock.step_s[1:]))  # the first one allocates
        began += spent
    print(f"before the first step {start_s} s, a step {step_s} s of processor time", flush=True)
    epoch_s = [keys["epochs"] * keys["steps_per_epoch"] * seconds for keys, seconds in zip(recipe, step_s, strict=True)]
    steps = planned_epoch_steps(args.minutes, start_s, epoch_s, recipe[0]["steps_per_epoch"])
    facts = {"minutes": args.minutes, "start_s": start_s, "step_s": step_s, "steps_per_epoch": steps}
    write_json(args.work / "ours" / "plan.json", facts)
    print(json.dumps(facts))


def steps_done(folder: str) -> int:
    """How far the training in a folder came."""
    card = Path(folder) / "model.json"
    return int(json.loads(card.read_text(encoding="utf-8"))["steps"]) if card.is_file() else 0


def ours(args: argparse.Namespace) -> None:
    """Train the shipped recipe for about the minutes, measure it on Test1."""
    folder = args.work / "ours"
    if not (folder / "plan.json").is_file():
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--plan"], check=True)  # its time is not counted
    planned = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    if planned["minutes"] != args.minutes:
        raise SystemExit(f"{folder} was planned for {planned['minutes']} minutes: choose another --work, or remove it")
    clock, recipe = ProcessorClock(folder / "processor.json"), stages(args)
    steps = [keys["epochs"] * planned["steps_per_epoch"] for keys in recipe]
    missing = [keys for keys, number in zip(recipe, steps, strict=True) if steps_done(keys["output_dir"]) < number]
    for keys in missing:
        train({**keys, "steps_per_epoch": planned["steps_per_epoch"]}, clock)
        clock.save()
    if missing or not (folder / "run.json").is_file():
        write_json(folder / "run.json", our_facts(args, recipe, steps, clock))
    files = {"datalist": args.datalist, "model_dir": recipe[-1]["output_dir"], "output_dir": folder / "evaluation"}
    files |= {"config_file": CONFIGS / "evaluate.yaml", "bundle_root": CONFIGS.parent}
    words = [word for key, file in files.items() for word in (f"--{key}", str(file))]
    subprocess.run([sys.executable, "-m", "monai.bundle", "run", "evaluate", *words], check=True)


def our_facts(args: argparse.Namespace, recipe: Sequence[Facts], steps: Sequence[int], clock: ProcessorClock) -> Facts:
    """What the table needs of our run."""
    times, means = list(clock.step_s), []
    for number in steps:
        means.append(statistics.fmean(times[:number]))
        del times[:number]
    schema = LandmarkSchema.load(str(Datalist.load(args.datalist).schema))
    network = landmark_network(schema.count, recipe[0]["architecture"])
    return run_facts(
        args,
        start="random" if args.weights == "random" else "ImageNet",
        parameters=sum(weight.numel() for weight in network.parameters()),
        grids=[keys["spatial_size"] for keys in recipe],
        batch=recipe[0]["batch_size"],
        steps=list(steps),
        recipe_steps=[keys["epochs"] * keys["steps_per_epoch"] for keys in recipe],
        recipe_epochs=sum(keys["epochs"] for keys in recipe),
        step_s=means,
        processor_s=clock.processor_s,
    )


# ---- both beside each other ----------------------------------------------------------------------------------------


def show(args: argparse.Namespace) -> None:
    """Print the table of what is finished, and write its records where asked."""
    runs = {}
    for name in NAMES:
        files = [args.work / name / "run.json", args.work / name / "evaluation" / "metrics.json"]
        if absent := [file for file in files if not file.is_file()]:
            raise SystemExit(f"{absent[0]} is not there: finish both runs first")
        facts, metrics = (json.loads(file.read_text(encoding="utf-8")) for file in files)
        runs[name] = (facts, metrics)
    print("\n".join(table(runs)))
    if args.json:
        write_json(args.json, records(runs))


def main() -> None:
    """Do what the command line asks."""
    args = arguments()
    if args.table:
        show(args)
    elif args.plan:
        plan(args)
    elif args.ours:
        ours(args)
    else:
        landmarker(args)


if __name__ == "__main__":
    main()
