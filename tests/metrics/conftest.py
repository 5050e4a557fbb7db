from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn


def alexnet_features() -> nn.Sequential:
    """The convolutional part of AlexNet as torchvision has it (Krizhevsky 2014), weights at random."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
    )


@pytest.fixture
def alexnet() -> tuple[nn.Sequential, dict[str, Tensor]]:
    """That network, and its tensors as its file names them."""
    torch.manual_seed(0)
    features = alexnet_features()
    return features, {f"features.{name}": tensor for name, tensor in features.state_dict().items()}
