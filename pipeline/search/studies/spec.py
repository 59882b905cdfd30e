"""What a study is made of: the project, its name, all values, the data and the space."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import DataError, PipelineError
from pipeline.files import Project
from pipeline.records import Meta, load_meta
from pipeline.search.space.space import Space
from pipeline.search.studies.trials import Trial


@dataclass(frozen=True)
class StudySpec:
    """What one start of a study works on."""

    project: Project
    name: str
    """Of the study in Optuna."""
    settings: Config
    meta: Meta
    space: Space

    @classmethod
    def of(cls, project: Project, name: str, settings: Config) -> "StudySpec":
        """Raises DataError if the data is missing or not that of params.yaml; PipelineError for an empty space."""
        meta = load_meta(project.meta)
        if settings.data.name not in ("folder", meta.name):
            raise DataError(
                f"data/ holds {meta.name}, but data.name is {settings.data.name}: run `dvc repro download` first."
            )
        space = Space.of(settings)
        if not len(space):
            raise PipelineError("The section space of params.yaml is empty: name at least one key to search.")
        return cls(project, name, settings, meta, space)

    @property
    def folder(self) -> Path:
        """Of the study's checkpoints, weights and logs."""
        return self.project.study_folder(self.name)

    def config_of(self, trial: Trial) -> Config:
        """All values of a trial."""
        return self.settings.of_trial({**trial.values, "train.seed": trial.attributes["seed"]})
