"""ResNets as other libraries write them: the same parts under their names, each with its forward.

They are written from those libraries' published attribute names, smaller where that loses nothing.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """torchvision's BasicBlock; timm's has the same attributes but calls its ReLUs act1, act2."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or inputs != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + identity)


def layer(inputs, width, stride, blocks=2, block=Block):
    rest = [block(width, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(block(inputs, width, stride), *rest)


class TorchvisionResNet(nn.Module):
    """ResNet-18 as torchvision has it; `width` is 64 there."""

    def __init__(self, width=64, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = layer(width, width, 1)
        self.layer2 = layer(width, 2 * width, 2)
        self.layer3 = layer(2 * width, 4 * width, 2)
        self.layer4 = layer(4 * width, 8 * width, 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class TimmPool(nn.Module):
    """timm's SelectAdaptivePool2d, which flattens as well."""

    def forward(self, x):
        return x.mean((2, 3))


class TimmResNet(nn.Module):
    """timm's: `act1` for the ReLU, `global_pool`, a stem of three convolutions, dropout."""

    def __init__(self, width=8, classes=10):
        super().__init__()
        convs = [nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
        self.conv1 = nn.Sequential(*convs, nn.Conv2d(width, width, 3, 1, 1, bias=False))
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = layer(width, width, 1)
        self.layer2 = layer(width, 2 * width, 2)
        self.layer3 = layer(2 * width, 4 * width, 2)
        self.layer4 = layer(4 * width, 8 * width, 2)
        self.global_pool = TimmPool()
        self.drop_rate = 0.3
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, x):
        x = self.maxpool(self.act1(self.bn1(self.conv1(x))))
        x = self.global_pool(self.layer4(self.layer3(self.layer2(self.layer1(x)))))
        return self.fc(F.dropout(x, self.drop_rate, self.training))


class CifarBlock(nn.Module):
    """BasicBlock of pytorch_resnet_cifar10: functions for ReLUs, an option-A shortcut."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.pad = width // 4 if inputs != width else None

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.pad is not None:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad), "constant", 0)
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """ResNet-20 of pytorch_resnet_cifar10: no modules for ReLU and pool, `linear` on top."""

    def __init__(self, classes=10, blocks=3):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = layer(16, 16, 1, blocks, CifarBlock)
        self.layer2 = layer(16, 32, 2, blocks, CifarBlock)
        self.layer3 = layer(32, 64, 2, blocks, CifarBlock)
        self.linear = nn.Linear(64, classes)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.avg_pool2d(out, out.size()[3])
        return self.linear(out.view(out.size(0), -1))


def with_random_statistics(module, seed=0):
    """The module in eval mode, its batch norms as if they had been trained."""
    rng = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.copy_(0.1 * torch.randn(norm.num_features, generator=rng))
            norm.running_var.copy_(0.5 + torch.rand(norm.num_features, generator=rng))
    return module.eval()
