"""Small convolutional and mixed architectures with the structure of the published ones; see `export`.

Imported only when models are built: it needs torch.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def conv(
    inputs: int,
    outputs: int,
    size: int = 3,
    stride: int = 1,
    groups: int = 1,
    act: type[nn.Module] | None = nn.ReLU,
    dilation: int = 1,
) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    pad = (size - 1) // 2 * dilation
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, size, stride, pad, dilation, groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([act()] if act else []))


def head(inputs: int, classes: int = 10, hidden: int = 0) -> nn.Sequential:
    """Mean over the image, then one or two linear layers."""
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if not hidden:
        return nn.Sequential(*pool, nn.Linear(inputs, classes))
    return nn.Sequential(*pool, nn.Linear(inputs, hidden), nn.Hardswish(), nn.Dropout(), nn.Linear(hidden, classes))


class Residual(nn.Module):
    """``act(body(x) + skip(x))``."""

    def __init__(self, body: nn.Module, skip: nn.Module | None = None, act: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.skip, self.act = body, skip or nn.Identity(), act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Body plus skip."""
        found: Tensor = self.act(self.body(x) + self.skip(x))
        return found


class Parallel(nn.Module):
    """Branches over one input, their results concatenated; ``keep`` puts the input first."""

    def __init__(self, *branches: nn.Module, keep: bool = False) -> None:
        super().__init__()
        self.branches, self.keep = nn.ModuleList(branches), keep

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate over the channels."""
        return torch.cat([*([x] if self.keep else []), *(branch(x) for branch in self.branches)], 1)


class SqueezeExcite(nn.Module):
    """Scale every channel by a gate computed from the channels' means."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, width, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The gated input."""
        gate: Tensor = self.gate(x)
        return x * gate


def vgg() -> nn.Module:
    """VGG with batch norm: a plain chain, and a flattened map into linear layers."""
    body: list[nn.Module] = []
    for inputs, outputs in ((3, 24), (24, 40), (40, 56)):
        body += [conv(inputs, outputs), conv(outputs, outputs), nn.MaxPool2d(2)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(56 * 16, 72), nn.ReLU(), nn.Dropout(), nn.Linear(72, 10))


def resnext() -> nn.Module:
    """ResNeXt: bottlenecks with grouped convolutions, and a projected skip."""

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        body = nn.Sequential(conv(inputs, 48, 1), conv(48, 48, 3, stride, groups=6), conv(48, outputs, 1, act=None))
        skip = conv(inputs, outputs, 1, stride, act=None) if inputs != outputs else None
        return Residual(body, skip, nn.ReLU())

    return nn.Sequential(conv(3, 32, 3, 2), block(32, 80, 1), block(80, 80, 1), block(80, 96, 2), head(96))


def preact_resnet() -> nn.Module:
    """ResNet v2: norm and activation before the convolutions, so that the residual stream is bare."""

    def block(width: int) -> nn.Module:
        layers = [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False)]
        more = [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False)]
        return Residual(nn.Sequential(*layers, *more))

    return nn.Sequential(
        nn.Conv2d(3, 40, 3, 2, 1, bias=False), block(40), block(40), nn.BatchNorm2d(40), nn.ReLU(), head(40)
    )


def wide_groupnorm() -> nn.Module:
    """A ResNet with group norm and SiLU, as diffusion models have."""

    def block(width: int) -> nn.Module:
        halves = [nn.Sequential(nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, width, 3, 1, 1)) for _ in range(2)]
        return Residual(nn.Sequential(*halves))

    return nn.Sequential(nn.Conv2d(3, 48, 3, 2, 1), block(48), block(48), nn.GroupNorm(4, 48), nn.SiLU(), head(48))


def densenet() -> nn.Module:
    """DenseNet: every layer concatenates its channels to what it reads, norm first."""

    def layer(inputs: int, growth: int = 12) -> nn.Module:
        narrow = [nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, 4 * growth, 1, bias=False)]
        wide = [nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)]
        return Parallel(nn.Sequential(*narrow, *wide), keep=True)

    transition = [nn.BatchNorm2d(60), nn.ReLU(), nn.Conv2d(60, 30, 1, bias=False), nn.AvgPool2d(2)]
    return nn.Sequential(
        conv(3, 24, 3, 2),
        *(layer(24 + 12 * index) for index in range(3)),
        *transition,
        *(layer(30 + 12 * index) for index in range(2)),
        nn.BatchNorm2d(54),
        nn.ReLU(),
        head(54),
    )


def mobilenet_v3() -> nn.Module:
    """MobileNetV3: inverted residuals with squeeze-and-excite, ReLU and hard-swish, a two-layer head."""

    def block(inputs: int, wide: int, outputs: int, stride: int, excite: bool, act: type[nn.Module]) -> nn.Module:
        middle = [SqueezeExcite(wide, wide // 4)] if excite else []
        body = nn.Sequential(
            conv(inputs, wide, 1, act=act),
            conv(wide, wide, 5 if excite else 3, stride, wide, act=act),
            *middle,
            conv(wide, outputs, 1, act=None),
        )
        return Residual(body) if stride == 1 and inputs == outputs else body

    return nn.Sequential(
        conv(3, 16, 3, 2, act=nn.Hardswish),
        block(16, 40, 24, 2, False, nn.ReLU),
        block(24, 60, 24, 1, False, nn.ReLU),
        block(24, 72, 32, 1, True, nn.Hardswish),
        block(32, 96, 32, 1, True, nn.Hardswish),
        conv(32, 96, 1, act=nn.Hardswish),
        head(96, hidden=80),
    )


class ShuffleUnit(nn.Module):
    """ShuffleNetV2's unit: half of the channels pass by, then the halves are interleaved; with a stride, both halves
    are computed.
    """

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        half = width // 2
        inputs = half if stride == 1 else width
        self.main = nn.Sequential(
            conv(inputs, half, 1), conv(half, half, 3, stride, half, act=None), conv(half, half, 1)
        )
        side = nn.Sequential(conv(inputs, inputs, 3, stride, inputs, act=None), conv(inputs, half, 1))
        self.side = nn.Identity() if stride == 1 else side

    def forward(self, x: Tensor) -> Tensor:
        """Split, compute, concatenate, shuffle."""
        left, right = x.chunk(2, 1) if self.stride == 1 else (x, x)
        joined = torch.cat([self.side(left), self.main(right)], 1)
        batch, width, rows, columns = joined.shape
        return joined.view(batch, 2, width // 2, rows, columns).transpose(1, 2).reshape(batch, width, rows, columns)


def shufflenet_v2() -> nn.Module:
    """ShuffleNetV2."""
    units = [ShuffleUnit(48, 2), ShuffleUnit(48, 1), ShuffleUnit(48, 1)]
    return nn.Sequential(conv(3, 48, 3, 2), *units, conv(48, 72, 1), head(72))


class ShuffleV1(nn.Module):
    """ShuffleNet's unit: grouped 1x1 convolutions with a channel shuffle between them."""

    def __init__(self, width: int, hidden: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.reduce = conv(width, hidden, 1, groups=groups)
        self.depth = conv(hidden, hidden, 3, groups=hidden, act=None)
        self.expand = conv(hidden, width, 1, groups=groups, act=None)

    def forward(self, x: Tensor) -> Tensor:
        """Reduce, shuffle, filter, expand, add."""
        y = self.reduce(x)
        batch, width, rows, columns = y.shape
        y = y.view(batch, self.groups, width // self.groups, rows, columns).transpose(1, 2)
        y = y.reshape(batch, width, rows, columns)
        return torch.relu(x + self.expand(self.depth(y)))


def shufflenet_v1() -> nn.Module:
    """ShuffleNet."""
    return nn.Sequential(conv(3, 48, 3, 2), ShuffleV1(48, 24, 3), ShuffleV1(48, 24, 3), head(48))


def inception() -> nn.Module:
    """GoogLeNet's block: four branches, factorised filters, a pooled branch."""

    def block(inputs: int) -> nn.Module:
        return Parallel(
            conv(inputs, 20, 1),
            nn.Sequential(conv(inputs, 12, 1), conv(12, 28, 3)),
            nn.Sequential(conv(inputs, 8, 1), conv(8, 16, 3), conv(16, 16, 3)),
            nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(inputs, 12, 1)),
        )

    return nn.Sequential(conv(3, 32, 3, 2), block(32), nn.MaxPool2d(3, 2, 1), block(76), head(76))


def squeezenet() -> nn.Module:
    """SqueezeNet: fire blocks without norms, and a convolution for a classifier."""

    def fire(inputs: int, squeeze: int, expand: int) -> nn.Module:
        wide = Parallel(
            nn.Sequential(nn.Conv2d(squeeze, expand, 1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(squeeze, expand, 3, padding=1), nn.ReLU()),
        )
        return nn.Sequential(nn.Conv2d(inputs, squeeze, 1), nn.ReLU(), wide)

    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        fire(32, 12, 24),
        fire(48, 14, 36),
        nn.Conv2d(72, 10, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class RepVggBlock(nn.Module):
    """A 3x3, a 1x1 and a bare norm over one input, summed."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.dense = conv(inputs, outputs, 3, stride, act=None)
        self.point = conv(inputs, outputs, 1, stride, act=None)
        self.bare = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Sum of the branches."""
        total = self.dense(x) + self.point(x)
        return torch.relu(total if self.bare is None else total + self.bare(x))


def repvgg() -> nn.Module:
    """RepVGG before its branches are folded."""
    return nn.Sequential(
        RepVggBlock(3, 40, 2), RepVggBlock(40, 40), RepVggBlock(40, 72, 2), RepVggBlock(72, 72), head(72)
    )


class UNet(nn.Module):
    """UNet: three scales, skips concatenated to what transposed convolutions bring up."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Sequential(conv(i, o), conv(o, o)) for i, o in ((3, 16), (16, 32), (32, 56)))
        self.raise_ = nn.ModuleList((nn.ConvTranspose2d(56, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)))
        self.up = nn.ModuleList(nn.Sequential(conv(i, o), conv(o, o)) for i, o in ((64, 32), (32, 16)))
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """A map of logits as large as the image."""
        skips = []
        for index, block in enumerate(self.down):
            x = block(torch.max_pool2d(x, 2) if index else x)
            skips.append(x)
        for rise, block, skip in zip(self.raise_, self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([skip, rise(x)], 1))
        found: Tensor = self.last(x)
        return found


class CrossStage(nn.Module):
    """YOLO's C2f: split, a chain of bottlenecks over one half, every stage concatenated."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.first = conv(inputs, outputs, 1, act=nn.SiLU)
        chain = [nn.Sequential(conv(half, half, act=nn.SiLU), conv(half, half, act=nn.SiLU)) for _ in range(2)]
        self.chain = nn.ModuleList(Residual(body) for body in chain)
        self.last = conv(2 * outputs, outputs, 1, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate both halves and every bottleneck's result."""
        found = list(self.first(x).chunk(2, 1))
        for body in self.chain:
            found.append(body(found[-1]))
        joined: Tensor = self.last(torch.cat(found, 1))
        return joined


class Yolo(nn.Module):
    """A detector: cross-stage blocks, pooled pyramid, an upsampled skip, two heads in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 24, 3, 2, act=nn.SiLU), CrossStage(24, 32))
        self.deep = nn.Sequential(conv(32, 48, 3, 2, act=nn.SiLU), CrossStage(48, 48))
        self.pool, self.mix = nn.MaxPool2d(5, 1, 2), conv(96, 40, 1, act=nn.SiLU)
        self.neck = CrossStage(72, 36)
        self.heads = nn.ModuleList((nn.Conv2d(36, 12, 1), nn.Conv2d(40, 12, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Predictions ``[batch, 12, places]``."""
        fine = self.stem(x)
        deep = self.deep(fine)
        deep = self.mix(torch.cat([deep, self.pool(deep)], 1))
        up = nn.functional.interpolate(deep, scale_factor=2.0, mode="nearest")
        fine = self.neck(torch.cat([up, fine], 1))
        return torch.cat([head(part).flatten(2) for head, part in zip(self.heads, (fine, deep), strict=True)], 2)


def convmixer() -> nn.Module:
    """ConvMixer: the norm follows the activation, so that it has no convolution before it to fold into."""

    def layer(size: int, groups: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(56, 56, size, padding=size // 2, groups=groups), nn.GELU(), nn.BatchNorm2d(56)]

    blocks = [nn.Sequential(Residual(nn.Sequential(*layer(5, groups=56))), *layer(1)) for _ in range(2)]
    return nn.Sequential(nn.Conv2d(3, 56, 4, 4), nn.GELU(), nn.BatchNorm2d(56), *blocks, head(56))


def espcn() -> nn.Module:
    """Super-resolution by pixel shuffle, with PReLU."""
    layers = [nn.Conv2d(3, 32, 5, padding=2), nn.PReLU(32), nn.Conv2d(32, 24, 3, padding=1), nn.PReLU(24)]
    return nn.Sequential(*layers, nn.Conv2d(24, 12, 3, padding=1), nn.PixelShuffle(2))


def tcn() -> nn.Module:
    """A temporal network: dilated one-dimensional convolutions over ``[batch, 20, 64]``."""

    def block(dilation: int) -> nn.Module:
        layers = [nn.Conv1d(40, 40, 3, padding=dilation, dilation=dilation), nn.BatchNorm1d(40), nn.ReLU()]
        return Residual(nn.Sequential(*layers, nn.Conv1d(40, 40, 1)))

    pool = [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(40, 10)]
    return nn.Sequential(nn.Conv1d(20, 40, 1), block(1), block(2), block(4), nn.BatchNorm1d(40), nn.ReLU(), *pool)


def tabular() -> nn.Module:
    """Linear layers with batch norm over rows of 30 columns."""
    layers = [nn.Linear(30, 72), nn.BatchNorm1d(72), nn.ReLU(), nn.Linear(72, 48), nn.BatchNorm1d(48), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(48, 10))


IMAGE, MAP = (3, 32, 32), (3, 64, 64)
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vgg-bn": (vgg, IMAGE),
    "resnext": (resnext, IMAGE),
    "resnet-preact": (preact_resnet, IMAGE),
    "resnet-groupnorm": (wide_groupnorm, IMAGE),
    "densenet": (densenet, IMAGE),
    "mobilenet-v3": (mobilenet_v3, MAP),
    "shufflenet-v1": (shufflenet_v1, IMAGE),
    "shufflenet-v2": (shufflenet_v2, IMAGE),
    "inception": (inception, IMAGE),
    "squeezenet": (squeezenet, MAP),
    "repvgg": (repvgg, IMAGE),
    "unet": (UNet, IMAGE),
    "yolo": (Yolo, MAP),
    "convmixer": (convmixer, IMAGE),
    "espcn": (espcn, IMAGE),
    "tcn": (tcn, (20, 64)),
    "tabular": (tabular, (30,)),
}
"""The name of a model: its builder, and the shape of its input without the batch."""
