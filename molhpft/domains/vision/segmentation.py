"""DeepLabV3 (Chen et al., 2017): a dilated ResNet, and the whole ASPP classifier as task head."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molhpft.core.network import Batch, Chain, Plain, Stage
from molhpft.core.ranges import BelowOne, Count
from molhpft.domains.vision.resnet import resnet


def segmentation_resnet(
    *, depth: Literal[18, 34, 50] = 50, output_stride: Literal[8, 16, 32] = 8, channels: Count = 3
) -> Chain:
    """A ResNet without its pool: features (n, d, height / stride, width / stride).

    Args:
        depth: layers with weights, as `resnet` counts them.
        output_stride: image pixels a step on the feature map.
        channels: of the images.
    """
    whole = resnet(depth=depth, output_stride=output_stride, channels=channels)
    return whole.split("pool")[0]


def aspp_head(
    width: int,
    outputs: int,
    *,
    hidden: Count = 256,
    rates: tuple[Count, ...] = (12, 24, 36),
    dropout: BelowOne = 0.5,
) -> Chain:
    """DeepLabV3's head: atrous spatial pyramid pooling, a convolution, a classifier a pixel.

    Training needs at least two images a batch: the pooled branch normalises one pixel an image.

    Args:
        width: channels of the features.
        outputs: classes.
        hidden: channels of every branch.
        rates: dilations of the 3 x 3 branches; those of output stride 8, halve them for 16.
        dropout: after the pyramid.
    """
    pyramid = PyramidPooling(width, hidden, rates, dropout=dropout)
    return Chain(
        {
            "aspp": Plain(pyramid, width=hidden),
            "conv": Plain(_conv(hidden, hidden, dilation=1), width=hidden),
            "classifier": Plain(nn.Conv2d(hidden, outputs, 1), width=outputs),
            "upsample": UpsampleToImage(outputs),
        }
    )


class PyramidPooling(nn.Module):
    """A 1 x 1 convolution, a dilated one for each rate and the image's mean, side by side."""

    def __init__(self, width: int, hidden: int, rates: tuple[int, ...], *, dropout: float) -> None:
        super().__init__()
        dilated = [_conv(width, hidden, dilation=rate) for rate in rates]
        self.branches = nn.ModuleList([_conv1(width, hidden), *dilated])
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), _conv1(width, hidden))
        self.project = nn.Sequential(_conv1(hidden * (len(rates) + 2), hidden), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """(n, hidden, height, width) of features (n, width, height, width).

        Raises:
            ValueError: the features are no maps.
        """
        if x.ndim != 4:
            raise ValueError(
                "an aspp head reads feature maps (n, width, height, width), got features "
                f"{tuple(x.shape)}; use an encoder without a pool, such as segmentation_resnet"
            )
        pooled = self.pool(x).expand(-1, -1, *x.shape[-2:])
        branches = [branch(x) for branch in self.branches]
        result: Tensor = self.project(torch.cat([*branches, pooled], 1))
        return result


class UpsampleToImage(Stage):
    """Logits of the feature map, bilinear, at the size of the images in the batch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """(n, classes, height, width) of the images."""
        size = batch.inputs.shape[-2:]
        return F.interpolate(h, size=size, mode="bilinear", align_corners=False)


def _conv1(inputs: int, width: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, width, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


def _conv(inputs: int, width: int, *, dilation: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, width, 3, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())
