"""An ensemble and a soup of the networks that a search has trained: chosen on validation, tested once, recorded."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from pipeline import config, provenance
from pipeline.errors import PipelineError
from pipeline.evaluation.ensembles import Combiner, Member, groups
from pipeline.files import Project, atomic_write
from pipeline.outcome import Outcome
from pipeline.records import load_meta
from pipeline.search.studies import finished
from pipeline.search.studies.commands import tune_command
from pipeline.search.studies.finished import Study
from pipeline.tracking import Tracker

KINDS = ("single", "ensemble", "soup")
"""Keys of ensemble.json; the value of soup is null where no soup was as good as its ingredients."""


@dataclass(frozen=True)
class EnsembleOptions:
    """What the command line asks for."""

    study: str
    top: int
    """Networks that may take part."""
    confirmed: bool = False
    """Whether networks of the confirmation may take part too."""
    without: frozenset[int] = frozenset()
    """Numbers of trials that are left out."""


def combine(project: Project, options: EnsembleOptions, console: Console) -> dict[str, Any]:
    """Combines the best networks of a study, records that, and returns the content of ensemble.json.

    Raises ConfigError, DataError, TrackingError; PipelineError where there are fewer than two networks.
    """
    settings = config.load(project.params)
    meta = load_meta(project.meta)
    study = finished.read(project, options.study, meta, settings.model)
    members = _members(study, options, console)
    validation = settings.train.model_copy(update=study.validation)
    with console.status("reading the networks") as status:
        combiner = Combiner(project, settings, meta, validation, members, status.update)
        single, ensemble = combiner.single(), combiner.ensemble()
        soups = [soup for alike in groups([member.model for member in members]) for soup in combiner.soups(alike)]
        soup = combiner.best_soup(soups)
        mixtures = {"single": single, "ensemble": ensemble} | ({"soup": soup} if soup else {})
        found = {name: combiner.as_json(mixture) for name, mixture in mixtures.items()}
        # All choices are made before the test set is read.
        for name, scores in combiner.score_on_test_set(mixtures).items():
            found[name]["test"] = {key: value for key, value in asdict(scores).items() if value is not None}
        content = {
            "study": study.name,
            "finished": len(study.trials),
            "validation_pictures": len(combiner.labels),
            "test_pictures": meta.counts["test"],
            "members": combiner.members_as_json(),
            "soups": [combiner.as_json(each) for each in soups],
            "soup": None,
            **found,
        }
    with atomic_write(project.ensemble_figures) as aside:
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    _record(project, study, options, content)
    return content


def counted(members: Mapping[str, int]) -> str:
    """Members on a line: `trial 3 x 2, trial 7`."""
    return ", ".join(f"{name} x {count}" if count > 1 else name for name, count in members.items())


def _members(study: Study, options: EnsembleOptions, console: Console) -> list[Member]:
    """The networks that may take part, the best one first."""
    there = [*study.trials, *(study.confirmed if options.confirmed else ())]
    there = sorted((one for one in there if one.trial not in options.without), key=lambda one: -one.accuracy)
    if there and not any(one.weights.exists() for one in there):
        raise PipelineError(
            f"None of the weights that the study {study.name} trained are left in {there[0].weights.parents[1]}: "
            "search again under another --study of `python -m pipeline.tune`."
        )
    members = there[: options.top]
    if len(members) < 2:
        raise PipelineError(
            f"The study {study.name} has {len(members) or 'no'} finished network to combine, and an ensemble takes "
            f"two: `{tune_command(study.name, study.given)}` with a larger --trials or tune.budget finishes more."
        )
    if len(members) < options.top:
        console.print(
            f"The study {study.name} has {len(members)} finished networks, not the {options.top} asked for.",
            highlight=False,
        )
    return members


def _record(project: Project, study: Study, options: EnsembleOptions, content: Mapping[str, Any]) -> None:
    """A run of its own below the study's: another --top is another run."""
    found = {name: content[name] for name in KINDS if content[name]}
    with Tracker(project) as tracker:
        run = tracker.open(
            f"ensemble-{uuid.uuid4().hex}",
            name=f"ensemble of study {study.name}",
            parent=f"study-{study.key}",
            new=True,
        )
        with run.batch():
            run.log_params(
                {
                    "ensemble.study": study.name,
                    "ensemble.top": options.top,
                    "ensemble.confirmed": options.confirmed,
                    "ensemble.without": ", ".join(map(str, sorted(options.without))) or None,
                    **{f"{name}.members": counted(mixture["members"]) for name, mixture in found.items()},
                }
            )
            run.set_tags(provenance.tags(provenance.collect(project)) | {"study": study.name})
            run.log_metrics(
                {
                    f"{name}.{part}.{key}": value
                    for name, mixture in found.items()
                    for part in ("validation", "test")
                    for key, value in mixture[part].items()
                }
            )
            run.log_file(project.ensemble_figures)
            if content["soup"]:
                run.log_file(project.soup)
        run.finish(Outcome.FINISHED)
