"""Search methods: the regret of each after 5, 10, 15 and 20 full trainings, on learning curves of real networks.

    python benchmarks/search.py --data DIR
    python benchmarks/search.py --data DIR --tasks lcbench --methods ours,tpe --seeds 1 --workers 4
    python benchmarks/search.py --tasks tables --json

DIR holds lcbench/, the surrogate of the YAHPO benchmark (Pfisterer et al. 2022) for LCBench (Zimmer et al. 2021), and
taskset/, tasks of TaskSet (Metz et al. 2020) as files of DyHPO. LCBench needs onnxruntime: pip install -e ".[bench]".
`tables` are curves of this project's own trainings (benchmarks/curves); they need no DIR.

The cost of a search is the number of epochs that all its workers have trained, in full trainings. A worker takes one
unit of simulated time per epoch. Regret is (best - found) / (best - median), where `found` is the final accuracy of the
best trial that was trained to the end. Regret is 1 until there is such a trial. search_curves.py says what `best` and
`median` are. `ours` is the shipped scheduler with its own sampler, `asha` is this project's own with TPE, both with a
budget of 0.4 full trainings per trial. The others are Optuna's samplers and pruners with their defaults and no budget.
Methods of Syne Tune and SMAC3 (search_others.py) run if --methods names them.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import curves
import numpy as np
import optuna
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from search_curves import DEVELOPMENT, TABLES, Surrogate, SurrogateTask, Task, table, taskset
from search_methods import METHODS, Method
from search_others import OTHERS
from threadpoolctl import threadpool_limits

from pipeline.cli import guarded
from pipeline.errors import DataError
from pipeline.search.studies.options import count

COSTS = (5, 10, 15, 20)
ALL: Mapping[str, Method] = {**METHODS, **OTHERS}


def names(text: str) -> list[str]:
    found = [name for name in text.split(",") if name]
    if not found:
        raise argparse.ArgumentTypeError("names at least one")
    return found


def known(kind: str, given: Sequence[str], legal: Sequence[str]) -> None:
    unknown = [name for name in given if name not in legal]
    if unknown:
        raise DataError(f"There is no {kind} {', '.join(unknown)}. There are: {', '.join(legal)}")


def tasks_of(wanted: Sequence[str], data: Path | None) -> dict[str, list[Task]]:
    """The tasks by benchmark. `wanted` are names of benchmarks or tasks. Raises DataError."""
    found: dict[str, list[Task]] = {"lcbench": [], "taskset": [], "tables": []}
    legal = list(found)
    for path in sorted(TABLES.glob("*.csv")):
        if path.stem in curves.RECIPES:
            legal.append(path.stem)
            if {"tables", path.stem} & set(wanted):
                found["tables"].append(table(path, curves.RECIPES[path.stem].space))
    if data:
        for path in sorted((data / "taskset").glob("*.npz")):
            legal.append(path.stem)
            if {"taskset", path.stem} & set(wanted):
                found["taskset"].append(taskset(path))
    if data and any(name == "lcbench" or name.isdecimal() for name in wanted):
        surrogate = Surrogate.load(data)
        legal += sorted(surrogate.numbers)
        chosen = [name for name in wanted if name in surrogate.numbers]
        chosen += DEVELOPMENT if "lcbench" in wanted else ()
        found["lcbench"] += [SurrogateTask(name, surrogate) for name in chosen]
    known("task", wanted, legal)
    for name in ("lcbench", "taskset"):
        if name in wanted and not found[name]:
            raise DataError(f"--data must name a folder that holds {name}/.")
    return {benchmark: tasks for benchmark, tasks in found.items() if tasks}


def regrets(job: tuple[Task, str, int, int, int]) -> list[float]:
    """At each of COSTS."""
    task, method, seed, trials, workers = job
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with threadpool_limits(1):
        found = ALL[method](task, seed, trials, workers)
    return [found.regret(cost) for cost in COSTS]


def compare(arguments: argparse.Namespace) -> None:
    known("method", arguments.methods, list(ALL))
    for name in arguments.methods:
        if name in OTHERS:
            OTHERS[name].check()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    results: dict[str, dict[str, dict[str, list[list[float]]]]] = {}
    by_benchmark = tasks_of(arguments.tasks, arguments.data)
    searches = arguments.seeds * len(arguments.methods) * sum(len(tasks) for tasks in by_benchmark.values())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=searches)
        for benchmark, tasks in by_benchmark.items():
            for method in arguments.methods:
                for task in tasks:
                    progress.update(bar, description=f"{method} on {task.name}")
                    for seed in range(arguments.seeds):
                        job = task, method, seed, arguments.trials, arguments.workers
                        of_task = results.setdefault(benchmark, {}).setdefault(method, {}).setdefault(task.name, [])
                        of_task.append(regrets(job))
                        progress.advance(bar)
    if arguments.json:
        settings = {name: getattr(arguments, name) for name in ("seeds", "trials", "workers")}
        print(json.dumps({"costs": COSTS, "regrets": results, **settings}, indent=2))
        return
    for benchmark, of_methods in results.items():
        shown = Table(
            "method",
            *(f"at cost {cost}" for cost in COSTS),
            title=f"{benchmark}: mean regret of {len(by_benchmark[benchmark])} tasks, {arguments.seeds} seeds, "
            f"{arguments.trials} trials, {arguments.workers} workers",
        )
        for method, of_tasks in of_methods.items():
            means = np.mean(list(of_tasks.values()), axis=(0, 1))
            shown.add_row(method, *(f"{regret:.3f}" for regret in means))
        Console().print(shown)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that holds lcbench/ and taskset/")
    parser.add_argument(
        "--tasks",
        type=names,
        default=["lcbench", "taskset", "tables"],
        help="benchmarks (lcbench: its development tasks; taskset; tables) or single tasks; default: the three",
    )
    parser.add_argument(
        "--methods",
        type=names,
        default=list(METHODS),
        help=f"default: {', '.join(METHODS)}; of other libraries: {', '.join(OTHERS)}",
    )
    parser.add_argument("--seeds", type=count, default=3)
    parser.add_argument("--trials", type=count, default=50, help="configurations of a search")
    parser.add_argument("--workers", type=count, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    return guarded(lambda: compare(arguments))


if __name__ == "__main__":
    sys.exit(main())
