"""Images in a folder."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from qcc.compiler.calibrate.sources.spool import Feed
from qcc.ir.errors import ModelError
from qcc.ir.graph.ops import Value

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})
CHANNELS = {1: "L", 3: "RGB"}
FREE = 224  # of an axis of free size


def image_files(folder: Path) -> list[Path]:
    """The images in a folder and below it, in the order of their names.

    Raises:
        ModelError: there are none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        help = f"images are told by their names: {', '.join(sorted(SUFFIXES))}"
        raise ModelError("Q543", f"`{folder}` holds no images", help)
    return found


def image_feeds(
    files: Sequence[Path], inputs: Sequence[Value], mean: Sequence[float], std: Sequence[float]
) -> Iterator[Feed]:
    """One feed for each image: its shorter side becomes the model's, what is longer is cut off on both ends.

    Args:
        files: of the images.
        inputs: of the model, one of which takes images.
        mean: of the pixels, between 0 and 1, which is taken off, one for all channels or one each.
        std: by which the rest is divided.

    Raises:
        ModelError: Pillow is missing, the model takes no images, or a file is none.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ModelError("Q544", "a folder of images takes Pillow", "`pip install 'qcc[images]'`") from error
    value, first, height, width, channels = _layout(inputs)
    if any(len(one) not in (1, channels) for one in (mean, std)) or 0 in std:
        raise ModelError("Q543", f"a mean and a deviation of {channels} channels are one number or {channels}, not 0")
    shift, scale = np.array(mean, np.float32), np.array(std, np.float32)
    for path in files:
        try:
            with Image.open(path) as image:
                pixels = ImageOps.fit(image.convert(CHANNELS[channels]), (width, height))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ModelError("Q543", f"`{path}` is no image that can be read", "leave it out of the folder") from error
        array = np.asarray(pixels).reshape(height, width, channels)
        if value.dtype != "uint8":
            array = ((array.astype(np.float32) / 255 - shift) / scale).astype(value.dtype)
        yield {value.name: (array.transpose(2, 0, 1) if first else array)[None]}


def _layout(inputs: Sequence[Value]) -> tuple[Value, bool, int, int, int]:
    """The input that takes images, whether channels come first, height, width and channels.

    Raises:
        ModelError: there is none, or there are others.
    """
    value = inputs[0] if len(inputs) == 1 else None
    shape = () if value is None else value.shape or ()
    kinds = [(True, shape[1:2], shape[2:4]), (False, shape[3:4], shape[1:3])] if len(shape) == 4 else []
    real = value is not None and (value.dtype.startswith("float") or value.dtype == "uint8")
    for first, (count, *_), sides in ((one, tuple(two), three) for one, two, three in kinds):
        if real and value is not None and isinstance(count, int) and count in CHANNELS:
            height, width = (size if isinstance(size, int) else FREE for size in sides)
            return value, first, height, width, count
    help = "they go into one input [batch, 1 or 3, height, width], or with the channels last; a script feeds others"
    raise ModelError("Q543", "images do not go into this model", help)
