import json
import os
import subprocess
import sys
import time

from pipeline.checkup.leftovers import QUIET_S, leftovers
from pipeline.checkup.leftovers import of_dvc as leftovers_of_dvc
from pipeline.files import Project
from pipeline.findings import Finding


def found(project: Project, after_s: float = 2 * QUIET_S) -> list[Finding]:
    return [one for one in leftovers(project, time.time() + after_s) if isinstance(one, Finding)]


def test_partial_files_of_dead_processes_are_deleted(project: Project) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ours = project.training_data / f".images.npy.{os.getpid()}.part"
    theirs = project.home / f".metrics.json.{dead.pid}.part"
    for path in (ours, theirs, project.home / "mlflow.db.part"):
        path.write_bytes(b"half")
    assert not found(project, after_s=0), "who writes them may be on another machine"
    (finding,) = found(project)
    assert finding.what == (f"2 partial files of processes that are gone (0.0 MB): {theirs.name}, mlflow.db.part")
    assert finding.mend
    assert finding.mend() == "2 partial files deleted"
    assert ours.exists()
    assert not found(project)


def test_temporary_folders_are_deleted_and_a_partial_download_is_left(project: Project) -> None:
    temporary = project.data / ".unpacked-x"
    model = project.study_folder("main") / "trials" / "0000" / "mlflow-model"
    for folder in (temporary, model, project.downloads):
        folder.mkdir(parents=True)
    (temporary / "a.png").touch()
    (project.downloads / "cifar.tar.gz.part").touch()
    (finding,) = found(project)
    assert finding.what.startswith("2 temporary folders of processes that are gone")
    assert finding.mend
    finding.mend()
    assert not temporary.exists()
    assert (project.downloads / "cifar.tar.gz.part").exists()


def test_checkpoints_of_a_stopped_training_are_a_note_and_stay(project: Project) -> None:
    (project.checkpoints / "train-0").mkdir(parents=True)
    (project.checkpoints / "train-0" / "checkpoint.pt").write_bytes(bytes(2_000_000))
    (finding,) = found(project)
    assert finding.what == "checkpoints of 1 training that did not end (2.0 MB)"
    assert finding.mend is None


def test_a_damaged_lock_of_dvc_and_the_copy_of_a_killed_experiment_are_named(project: Project) -> None:
    def of_dvc() -> list[Finding]:
        return [one for one in leftovers_of_dvc(project, time.time() + 2 * QUIET_S) if isinstance(one, Finding)]

    assert not of_dvc()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    lock = project.home / ".dvc" / "tmp" / "rwlock"
    copy = lock.parent / "exps" / "standalone" / "tmpx"
    (copy / ".dvc" / "tmp").mkdir(parents=True)
    for pid, count in ((os.getpid(), 0), (dead.pid, 1)):
        content = {"write": {"/a": {"pid": dead.pid, "cmd": ""}}, "read": {"/b": [{"pid": pid, "cmd": ""}]}}
        (copy / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(content))
        assert len(of_dvc()) == count
    assert of_dvc()[0].remedy == "rm -r .dvc/tmp/exps/standalone/tmpx"
    lock.write_text("")
    assert of_dvc()[0].remedy == "rm .dvc/tmp/rwlock, when no DVC is running"
