"""Evaluation on a cluster: the cases of ``evaluate``, each run by whatever actor is free."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from personalive.cluster.tasks import ClusterOptions, Job, Running, actor_pool
from personalive.errors import DeviceError
from personalive.evaluation.results import CaseOutcome, EvaluateOptions, Evaluation, Progress
from personalive.evaluation.runner import Evaluator
from personalive.runtime.load import EngineOptions, load_engine
from personalive.runtime.memory import engine_oom_errors

Model = tuple[str, EngineOptions]  # weights, and how they are run


def evaluate_on_cluster(
    options: EvaluateOptions,
    model: Model | None,
    cluster: ClusterOptions,
    *,
    progress: Callable[[Progress], None],
    inputs: Path | None = None,
) -> Evaluation:
    """Score a model and the videos of other methods, as ``evaluate`` does, with the same numbers but for times.

    Args:
        options, inputs: as for ``evaluate``.
        model: of ``load_engine``, which each actor calls once; None scores the others alone.
        cluster: where.
        progress: called a few times per second.

    Raises:
        PersonaLiveError: as ``evaluate``, or there is no such cluster.
    """
    begun, outcomes = time.monotonic(), dict[int, CaseOutcome]()

    with actor_pool(partial(_job, options, model), cluster) as pool:
        tasks, total = pool.run_one(("plan",))
        unwritten = [] if inputs is None else pool.run_one(("write_inputs", inputs))

        def show(running: Running) -> None:
            scored = sum(outcome.scored for outcome in outcomes.values()) + sum(now or 0 for now in running.values())
            spent = max(time.monotonic() - begun, 1e-9)
            progress(Progress(frames=scored, total=total, fps=scored / spent))

        for index, outcome in pool.run([("run_case", task) for task in tasks], show):
            if isinstance(outcome, DeviceError):
                raise outcome
            outcomes[index] = outcome
        ordered = [outcomes[index] for index in range(len(tasks))]
        return pool.run_one(("gather", ordered, unwritten, time.monotonic() - begun))


def _job(options: EvaluateOptions, model: Model | None) -> Job:
    engine = None if model is None else load_engine(model[0], **model[1])
    evaluator = Evaluator(options, engine)

    def work(task: tuple[Any, ...], _tries: int, tell: Callable[[int], None]) -> Any:
        if task[0] == "plan":
            return evaluator.tasks, evaluator.total
        if task[0] == "run_case":
            with nullcontext() if engine is None else engine_oom_errors(engine):
                return evaluator.run_case(task[1], tell)
        return getattr(evaluator, task[0])(*task[1:])

    return work
