import pytest

from pipeline.audit.differences import Weight, differences

SAME = {
    "data.digest": "sha256:1",
    "code.train": "a",
    "device.type": "cpu",
    "device.name": "EPYC",
    "device.threads": "1",
    "device.precision": "bf16",
    "version.torch": "2.14.1",
    "version.torchvision": "0.29.1",
    "version.python": "3.11.7",
    "git.commit": "abc",
    "host": "here",
    "code.nets:build": "b",
}


def test_what_is_the_same_or_not_on_record_is_no_difference() -> None:
    assert differences(SAME, SAME) == []
    assert differences({}, SAME) == []
    assert differences(SAME, {}) == []


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("data.digest", Weight.RESULTS),
        ("code.train", Weight.RESULTS),
        ("code.nets:build", Weight.RESULTS),
        ("device.precision", Weight.RESULTS),
        ("device.type", Weight.DIGITS),
        ("device.threads", Weight.DIGITS),
        ("version.torch", Weight.DIGITS),
        ("git.commit", Weight.HARMLESS),
        ("version.python", Weight.HARMLESS),
        ("host", Weight.HARMLESS),
    ],
)
def test_a_difference_has_its_weight(name: str, weight: Weight) -> None:
    (found,) = differences(SAME, SAME | {name: "other"})
    assert (found.name, found.then, found.now, found.weight) == (name, SAME[name], "other", weight)


def test_the_gravest_comes_first_and_torchvision_counts_for_its_own_networks_alone() -> None:
    other = dict.fromkeys(SAME, "other")
    weights = [found.weight for found in differences(SAME, other)]
    assert weights == sorted(weights, key=list(Weight).index, reverse=True)
    assert "version.torchvision" not in [found.name for found in differences(SAME, other)]
    names = [found.name for found in differences(SAME | {"model.family": "torchvision"}, other)]
    assert "version.torchvision" in names
