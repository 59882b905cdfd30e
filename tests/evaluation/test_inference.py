import numpy as np
import pytest

from pipeline import networks
from pipeline.batches.batches import OrderedBatches
from pipeline.batches.images import Images
from pipeline.batches.loaders import Streamed
from pipeline.config import Config
from pipeline.errors import OutOfMemory
from pipeline.evaluation import test_set
from pipeline.evaluation.inference import predict
from pipeline.files import Project
from pipeline.records import Meta, load_meta
from pipeline.training import loop
from pipeline.training.device import Device


def test_with_flips_the_probabilities_are_the_mean_of_an_image_and_its_mirror_image(
    settings: Config, meta: Meta, images: Images, cpu: Device
) -> None:
    network = networks.build(settings.model, meta, seed=0)

    def predicted(pixels: np.ndarray, flip: bool = False) -> np.ndarray:
        batches = OrderedBatches(Streamed(Images(pixels, images.labels), cpu.handle), np.arange(64), batch_size=40)
        return predict(network, batches, cpu, flip=flip)

    plain, mirrored = predicted(images.pixels), predicted(np.ascontiguousarray(images.pixels[:, :, ::-1]))
    flipped = predicted(images.pixels, flip=True)
    assert np.abs(plain - mirrored).max() > 0.001
    np.testing.assert_allclose(flipped, (plain + mirrored) / 2, rtol=1e-5)


def test_too_little_memory_for_the_test_set_is_reported_with_the_key_to_change(
    settings: Config, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")

    network = networks.build(settings.model, load_meta(project.meta), seed=0)
    networks.save(network, project.model)
    monkeypatch.setattr(loop, "place", fails)
    with pytest.raises(OutOfMemory, match=r"\(evaluate\.batch_size\): halve it"):
        test_set.predict_test_set(project, settings.model, project.model, settings)
