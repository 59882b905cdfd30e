"""The digits that ship with scikit-learn."""

import json

import numpy as np

from pipeline.download import download


def test_the_test_part_of_digits_is_stratified_and_follows_its_seed(make_project, contents):
    project = make_project(name="digits", test_share=0.5, test_seed=1)
    download(project)
    first = contents(project.data)
    per_class = json.loads(first["meta.json"])["per_class"]
    assert all(abs(a - b) <= 1 for a, b in zip(per_class["train"], per_class["test"], strict=True))
    images = np.concatenate([np.load(folder / "images.npy") for folder in (project.training_data, project.test_data)])
    assert len(np.unique(images.reshape(1797, -1), axis=0)) == 1797  # no image is lost, and none is in both parts
    make_project(name="digits", test_share=0.5, test_seed=2)
    download(project)
    assert contents(project.data)["test/labels.npy"] != first["test/labels.npy"] or (
        contents(project.data)["test/images.npy"] != first["test/images.npy"]
    )
