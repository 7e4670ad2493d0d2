"""Runs the jobs of a study in their order on any engine, and says how far it is."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

from monai_landmark.study.engines import Engine
from monai_landmark.study.tasks import Outcome, Task, run_task

__all__ = ["run_tasks"]

Say = Callable[[str], None]


def run_tasks(tasks: Sequence[Task], work: str, engine: Engine, threads: int = 0, say: Say = print) -> list[Outcome]:
    """Run all jobs; those that are done are passed over, and one that fails stops only those that need it.

    Args:
        tasks: the jobs, each after those that it needs.
        work: the study's folder.
        engine: where they run.
        threads: processor threads of each; 0: as many as there are.
        say: takes a line of progress.

    Returns:
        How each ended, in the order of ``tasks``.
    """
    waiting, running, ended = list(tasks), dict[Future[Outcome], Task](), dict[str, Outcome]()
    progress = _Progress(tasks, engine.workers)
    while waiting or running:
        for task in list(waiting):
            state = [ended.get(name) for name in task.needs]
            if failed := [one.name for one in state if one and one.error]:
                waiting.remove(task)
                ended[task.name] = Outcome(task.name, f"needs {failed[0]}, which failed")
                say(progress.line(ended[task.name]))
            elif all(state) and len(running) < engine.workers:
                waiting.remove(task)
                running[engine.submit(run_task, task, work, threads)] = task
        if not running:
            continue
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            task = running.pop(future)
            error = future.exception()
            outcome = future.result() if error is None else Outcome(task.name, f"{type(error).__name__}: {error}")
            ended[task.name] = outcome
            say(progress.line(outcome))
    return [ended[task.name] for task in tasks]


class _Progress:
    """Lines such as ``7 of 40: cells/isbi/25/ddpm/full/s0, 4.1 min; 2 h 05 min left``."""

    def __init__(self, tasks: Sequence[Task], workers: int) -> None:
        self.kinds = {task.name: task.kind for task in tasks}
        self.left, self.workers = set(self.kinds), workers
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    def line(self, outcome: Outcome) -> str:
        """What to say when a job has ended."""
        self.left.discard(outcome.name)
        if outcome.seconds:
            self.seconds[self.kinds[outcome.name]].append(outcome.seconds)
        how = f"FAILED, {outcome.error}" if outcome.error else "was done"
        how = f"{outcome.seconds / 60:.1f} min" if outcome.seconds else how
        return f"{len(self.kinds) - len(self.left)} of {len(self.kinds)}: {outcome.name}, {how}{self._time_left()}"

    def _time_left(self) -> str:
        """From the median of what jobs of a kind took; empty while a kind is unknown."""
        kinds = [self.kinds[name] for name in self.left]
        if not kinds or any(kind not in self.seconds for kind in kinds):
            return ""
        minutes = round(sum(statistics.median(self.seconds[kind]) for kind in kinds) / self.workers / 60)
        return f"; {minutes // 60} h {minutes % 60:02d} min left" if minutes >= 60 else f"; {minutes} min left"
