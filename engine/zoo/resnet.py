"""ResNet-50 with the names of torchvision's state dict, so that its weights fit."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_EXPANSION = 4
# (width, blocks, stride of the first block) of the four stages.
_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
# With this one the test photographs all get different labels.
SEED = 2
# The images from which the seeded network takes its statistics, and how its logits spread on them.
_MADE_UP_IMAGES = 16
_MADE_UP_SIZE = 128
_LOGIT_STD = 6.0
# A small share keeps rounding differences small: made-up layers amplify them, one after the other.
_BRANCH_SHARE = 0.1


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut; the 3x3 carries the stride."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = width * _EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, 4 * width, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return functional.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet50(nn.Module):
    """Logits for normalized RGB images."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for number, (width, blocks, stride) in enumerate(_STAGES, start=1):
            stage = nn.Sequential()
            for index in range(blocks):
                stage.append(Bottleneck(channels, width, stride if index == 0 else 1))
                channels = width * _EXPANSION
            self.add_module(f"layer{number}", stage)
        self.fc = nn.Linear(channels, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) float32 images to (N, 2048) pooled features."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(x, 3, 2, padding=1)
        for number in range(1, len(_STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return x.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) float32 images to (N, classes) logits."""
        logits: Tensor = self.fc(self.features(x))
        return logits


def seeded_resnet50(seed: int) -> ResNet50:
    """A ResNet-50 with made-up weights whose scores still depend on the image.

    Random weights alone give nearly the same scores to every image: each layer's BatchNorm
    statistics are off, and the last features hardly differ. Here the statistics are those of
    made-up images, and the last layer looks at how the features differ from their mean. Two
    handlers that prepare an image differently, or mix up two images, then get different labels.

    Args:
        seed: of the weights and the images; the same seed gives the same network.
    """
    generator = torch.Generator().manual_seed(seed)
    model = ResNet50()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            # A cumulative average: after one batch the statistics are those of the batch.
            module.momentum = None
    for module in model.modules():
        if isinstance(module, Bottleneck):
            nn.init.constant_(module.bn3.weight, _BRANCH_SHARE)
    images = _made_up_images(generator)
    with torch.no_grad():
        features = model.train().features(images)
        mean = features.mean(dim=0)
        # How far apart the images lie sets how sure the network is of its best class.
        weight = torch.randn(model.fc.weight.shape, generator=generator)
        weight *= _LOGIT_STD / ((features - mean) @ weight.T).std()
        model.fc.weight.copy_(weight)
        model.fc.bias.copy_(-weight @ mean)
    return model.eval()


def _made_up_images(generator: torch.Generator) -> Tensor:
    """Normalized images with blobs and edges of all sizes and contrasts, as photographs have them.

    Returns:
        float32 of shape (_MADE_UP_IMAGES, 3, _MADE_UP_SIZE, _MADE_UP_SIZE).
    """

    def random(*shape: int) -> Tensor:
        return torch.randn((_MADE_UP_IMAGES, *shape), generator=generator)

    images = torch.zeros(_MADE_UP_IMAGES, 3, _MADE_UP_SIZE, _MADE_UP_SIZE)
    for cells in (2, 4, 8, 16, 32, 64, _MADE_UP_SIZE):
        # Grey more than coloured; each image has its own share of each size.
        blobs = (random(3, cells, cells) + 2 * random(1, cells, cells)) * random(1, 1, 1) / 2
        smooth = functional.interpolate(blobs, size=_MADE_UP_SIZE, mode="bilinear")
        images += smooth / cells**0.5 + 0.5 * smooth.sign() * random(3, 1, 1) / cells**0.5
    contrast = random(1, 1, 1).exp()
    return (images * contrast + random(3, 1, 1)).clamp(-2, 2.5)
