"""Our own architectures, for small images; everything else is timm's.

Each has what is used here of timm's models: `forward_features`, `forward_head`, `get_classifier`, `group_matcher` (what
belongs together, from the input on) and `pretrained_cfg` (the names of its first and its last layer).
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn


class ConvNet(nn.Module):
    """A plain network for tiny images: three stages of two 3x3 convolutions, each but the last halved by pooling.

    Args:
        num_classes: C.
        width: channels of the first stage; they double twice.
    """

    pretrained_cfg: ClassVar[dict[str, Any]] = {"first_conv": "features.0", "classifier": "head"}

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

    def forward_features(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] => the last feature map, [N, D, h, w]."""
        return self.features(x_NCHW)

    def forward_head(self, x_NDhw: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """[N, D, h, w] => logits [N, C], or what the last layer sees, [N, D]."""
        x_ND = x_NDhw.mean(dim=(2, 3))
        return x_ND if pre_logits else self.head(x_ND)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] => logits [N, C]."""
        return self.forward_head(self.forward_features(x_NCHW))

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.head

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return regular expressions over the names of the parameters, as timm's models do."""
        return {"stem": r"^features\.[01]\.", "blocks": r"^features\.(\d+)"}


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

    pretrained_cfg: ClassVar[dict[str, Any]] = {"first_conv": "stem", "classifier": "head"}

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

    def forward_features(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] => the last feature map, [N, D, h, w]."""
        return F.relu(self.norm(self.blocks(self.stem(x_NCHW))))

    def forward_head(self, x_NDhw: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """[N, D, h, w] => logits [N, C], or what the last layer sees, [N, D]."""
        x_ND = x_NDhw.mean(dim=(2, 3))
        return x_ND if pre_logits else self.head(x_ND)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] => logits [N, C]."""
        return self.forward_head(self.forward_features(x_NCHW))

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.head

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return regular expressions over the names of the parameters, as timm's models do."""
        return {"stem": r"^stem", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}


ARCHITECTURES: dict[str, type[ConvNet] | type[PreActResNet18]] = {"convnet": ConvNet, "preact_resnet18": PreActResNet18}
"""By name; importing timm, which takes seconds, is left to those who name one of its models."""
