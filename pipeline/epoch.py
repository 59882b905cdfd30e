"""What a training says after each pass over the images."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """The figures of one pass over the training images."""

    number: int
    """Counts from 1."""
    learning_rate: float
    """Of its last step."""
    training_loss: float
    """Mean over its steps, while the weights move; with the label smoothing that was asked for."""
    training_accuracy: float
    """Share, likewise; of augmented images."""
    validation_loss: float
    """Mean cross entropy after the pass, without label smoothing."""
    validation_accuracy: float
    """Share, after the pass."""
    images_per_second: float
    """Of training, validation not counted."""
    elapsed_s: float
    """Seconds of training and validation since the first epoch began, over all its starts."""
