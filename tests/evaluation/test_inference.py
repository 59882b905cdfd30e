import numpy as np

from pipeline import networks
from pipeline.batches.batches import OrderedBatches
from pipeline.batches.images import Images
from pipeline.batches.loaders import Streamed
from pipeline.config import Config
from pipeline.evaluation.inference import predict
from pipeline.records import Meta
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
