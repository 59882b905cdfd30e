"""The values that the stages depend on, default or not, as files: what the stage config of dvc.yaml writes.

A section of params.yaml would be too little for DVC: a default that changes would retrain nothing, and too much: a key
that is written out with the value that it has anyway would retrain.
"""

from typing import Any

from pipeline.config.files import read_yaml, yaml_text
from pipeline.config.loading import Config
from pipeline.files import Project, atomic_write


def write_resolved(project: Project, config: Config) -> None:
    """Writes a file per section into results/config, and defaults.yaml: the values of the keys that params.yaml lacks.

    Stages depend on the sections; `dvc params diff` and `dvc exp show` list the defaults beside params.yaml.
    """
    content: dict[str, Any] = read_yaml(project.params)
    sections = config.by_section()
    lacking = {
        section: {key: value for key, value in values.items() if key not in (content.get(section) or {})}
        for section, values in sections.items()
    }
    sections["report"] = config.report.model_dump()
    files = sections | {"defaults": {section: values for section, values in lacking.items() if values}}
    for name, values in files.items():
        with atomic_write(project.resolved / f"{name}.yaml") as aside:
            aside.write_text(yaml_text(values), encoding="utf-8")
