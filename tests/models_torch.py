"""Small PyTorch modules with the shapes that matter: ties, residuals, depthwise, a module that runs twice."""

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn

VOCAB, WIDTH, HEADS, INNER = 4200, 64, 4, 96  # the ONNX exporter folds the transposition of a tied table under 2^18


class SmallCnn(nn.Module):
    """Depthwise, grouped and strided convolutions, a residual, a concatenation, pooling and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.pointwise = nn.Conv2d(16, 16, 1)
        self.grouped = nn.Conv2d(16, 24, 3, padding=1, groups=4)
        self.features = nn.Linear(40, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.stem(image))
        x = x + F.hardtanh(self.pointwise(F.relu(self.depthwise(x), inplace=True)), 0.0, 6.0)
        x = F.max_pool2d(torch.cat([x, self.grouped(x)], 1), 2)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        result: Tensor = self.head(F.relu(self.features(x)))
        return result


class NormalisedCnn(nn.Module):
    """Batch norms after convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)
        self.norm.running_mean, self.norm.running_var = torch.randn(8), torch.rand(8) + 0.5

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.head(F.relu(self.norm(self.conv(image))).mean((2, 3)))
        return result


class RmsNorm(nn.Module):
    """RMS normalisation in pieces, as most language models spell it."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(WIDTH) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


class Attention(nn.Module):
    """Causal self-attention over fused q, k and v."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (part.view(batch, length, HEADS, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return result


class GatedMlp(nn.Module):
    """A SwiGLU feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, INNER, bias=False)
        self.up = nn.Linear(WIDTH, INNER, bias=False)
        self.down = nn.Linear(INNER, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return result


class SmallTransformer(nn.Module):
    """Token and position tables, a block whose feed-forward runs twice, a head tied to the token table."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCAB, WIDTH)
        self.positions = nn.Embedding(32, WIDTH)
        self.first_norm = nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.second_norm = RmsNorm()
        self.mlp = GatedMlp()
        self.mix = nn.Parameter(torch.randn(WIDTH, WIDTH) / 8)
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        x = x + self.attention(self.first_norm(x))
        x = x + self.mlp(self.second_norm(x))
        x = x + self.mlp(F.gelu(x @ self.mix))
        result: Tensor = self.head(x[:, -1:])
        return result


class Softmaxed(nn.Module):
    """Attention spelled with bmm and softmax, two outputs, a mask, and weights tied by their storage only."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(16, 16)
        self.key = nn.Linear(16, 16)
        self.key.weight = nn.Parameter(self.query.weight.data)
        self.register_buffer("scale", torch.full((1,), 0.25))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        scores = torch.bmm(self.query(x), self.key(x.tanh()).permute(0, 2, 1)) * self.scale
        scores = scores.masked_fill(mask, -1e4).softmax(-1)
        return torch.matmul(scores, x), scores.topk(2)[0]


class Untidy(nn.Module):
    """Dead code, in-place edits, a block without gradients, a parameter named like a node."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Parameter(torch.randn(8, 8))
        self.unused = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        self.unused.sin()
        y = x.clone()
        y[:, 0] = 1.0
        with torch.no_grad():
            y = y * torch.tensor(2.0)
        return F.linear(F.relu_(y), self.linear)


class Upsampler(nn.Module):
    """Weights read in the ways that no fused kernel takes: transposed convolution, on the left, with three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)
        self.line = nn.Conv1d(6, 6, 3)
        self.left = nn.Parameter(torch.randn(5, 6))
        self.experts = nn.Parameter(torch.randn(1, 6, 7))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.matmul(self.left, self.line(self.up(x).flatten(2))).to(torch.float32)
        return torch.bmm(x[:1, :, :6], self.experts)
