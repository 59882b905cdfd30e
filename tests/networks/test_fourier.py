import pytest
import torch
from torch.nn import functional as F

from pipeline.networks import fourier
from pipeline.networks.speed import Conv3x3


def example(*shape: int, outputs: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of that shape and a weight for them, both to be trained."""
    random = torch.Generator().manual_seed(0)
    features = torch.randn(*shape, generator=random, dtype=dtype)
    weight = torch.randn(outputs, shape[1], 3, 3, generator=random, dtype=dtype)
    return features.requires_grad_(), weight.requires_grad_()


@pytest.mark.parametrize("sides", [(1, 1), (2, 2), (3, 3), (4, 4), (7, 7), (8, 8), (10, 10), (1, 6), (5, 3), (4, 7)])
def test_it_is_the_convolution(sides: tuple[int, int]) -> None:
    features, weight = example(3, 5, *sides, outputs=4)
    assert torch.allclose(fourier.convolve(features, weight), F.conv2d(features, weight, padding=1), atol=1e-12)


@pytest.mark.parametrize("sides", [(1, 1), (3, 3), (4, 4), (5, 2)])
def test_its_gradients_are_those_of_the_convolution(sides: tuple[int, int]) -> None:
    features, weight = example(3, 5, *sides, outputs=4)
    weighting = torch.rand(3, 4, *sides, dtype=torch.float64)
    expected, found = (
        torch.autograd.grad((convolved * weighting).sum(), (features, weight))
        for convolved in (F.conv2d(features, weight, padding=1), fourier.convolve(features, weight))
    )
    assert all(torch.allclose(*pair, atol=1e-12) for pair in zip(expected, found, strict=True))


@pytest.mark.parametrize("side", [3, 7, 10])
def test_in_bf16_it_is_as_near_as_the_direct_one(side: int) -> None:
    features, weight = example(64, 96, side, side, outputs=96, dtype=torch.float32)
    exact = F.conv2d(features, weight, padding=1)
    seen = exact.detach().sign()  # the gradient of the output
    wanted = torch.autograd.grad(exact, (features, weight), seen)
    errors = []
    for convolve in (fourier.convolve, lambda features, weight: F.conv2d(features, weight, padding=1)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            convolved = convolve(features, weight)
        assert convolved.dtype == torch.bfloat16
        found = convolved, *torch.autograd.grad(convolved, (features, weight), seen.bfloat16())
        errors.append([((a - b).norm() / b.norm()).item() for a, b in zip(found, (exact, *wanted), strict=True)])
    assert all(ours < 2 * theirs < 0.02 for ours, theirs in zip(*errors, strict=True)), errors


@pytest.mark.parametrize(
    ("images", "side", "inputs", "outputs", "expected"),
    [
        (500, 7, 256, 256, True),
        (200, 10, 64, 144, True),
        (199, 7, 256, 256, False),
        (500, 11, 256, 256, False),
        (500, 7, 64, 96, False),
    ],
)
def test_it_pays_for_many_small_images_of_many_channels(
    images: int, side: int, inputs: int, outputs: int, expected: bool
) -> None:
    features = torch.zeros(1).expand(images, inputs, side, side)
    assert fourier.pays(features, torch.zeros(1).expand(outputs, inputs, 3, 3)) is expected


def test_it_pays_on_no_gpu() -> None:
    features = torch.zeros(500, 256, 7, 7, device="meta")
    assert not fourier.pays(features, torch.zeros(256, 256, 3, 3, device="meta"))


def test_a_layer_takes_it_in_training_alone_and_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Conv3x3(96, 96)
    features = torch.randn(200, 96, 4, 4)
    calls: list[int] = []
    convolve = fourier.convolve
    monkeypatch.setattr(fourier, "convolve", lambda *given: (calls.append(1), convolve(*given))[1])
    trained = layer(features)
    assert len(calls) == 1
    layer(features[:9])
    layer.eval()
    assert torch.allclose(trained, layer(features), atol=1e-4)
    assert len(calls) == 1
