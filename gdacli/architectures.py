"""Our own architectures, for small images; everything else is timm's."""

import torch
import torch.nn.functional as F
from torch import nn


class ConvNet(nn.Module):
    """A plain network for tiny images: three stages of two 3x3 convolutions, each but the last halved by pooling.

    Args:
        num_classes: C.
        width: channels of the first stage; they double twice.
    """

    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage in range(3):
            for _ in range(2):
                layers += [
                    nn.Conv2d(channels, width << stage, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width << stage),
                    nn.ReLU(),
                ]
                channels = width << stage
            if stage < 2:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.num_features = channels
        self.head = nn.Linear(channels, num_classes)

    def embed(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] in [0, 1] => what the last layer sees, [N, D]."""
        return self.features(x_NCHW).mean(dim=(2, 3))

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] in [0, 1] => logits [N, C]."""
        return self.head(self.embed(x_NCHW))


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after batch normalisation and ReLU; the shortcut starts after the first ReLU."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        changes = stride != 1 or channels_in != channels
        self.shortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C_in, H, W] => [N, C, H / stride, W / stride]."""
        out = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(out)
        return self.conv2(F.relu(self.bn2(self.conv1(out)))) + shortcut


class PreActResNet18(nn.Module):
    """Pre-activation ResNet-18 for images of about 32 x 32 pixels (11,172,170 parameters at width 64, 10 classes).

    Source: He et al. 2016; the stem and the shortcut as in the code that the targeted-augmentation paper cites.

    Args:
        num_classes: C.
        width: channels of the first stage; they double three times.
    """

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        blocks, channels = [], width
        for stage in range(4):
            for stride in ((1 if stage == 0 else 2), 1):
                blocks.append(PreActBlock(channels, width << stage, stride))
                channels = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(channels)
        self.num_features = channels
        self.head = nn.Linear(channels, num_classes)

    def embed(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] in [0, 1] => what the last layer sees, [N, D]."""
        return F.relu(self.norm(self.blocks(self.stem(x_NCHW)))).mean(dim=(2, 3))

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] in [0, 1] => logits [N, C]."""
        return self.head(self.embed(x_NCHW))


ARCHITECTURES: dict[str, type[nn.Module]] = {"convnet": ConvNet, "preact_resnet18": PreActResNet18}
"""By name; importing timm, which takes seconds, is left to those who name one of its models."""
