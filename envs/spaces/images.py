"""Images of any layout and bounds as uint8 arrays (height, width, channels), shrunk where they are large."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

COLOURS = (1, 3, 4)  # grey, RGB, RGB with alpha
MOST_CHANNELS = 16  # as many as a stack of frames may have in all


@dataclass(frozen=True)
class ImageLayout:
    """Where an array keeps its pixels.

    Attributes:
        height, width, channels: of the image; the frames of a stack count as channels.
        order: permutation of the array's axes that puts height and width first, channels (slowest first) last.
    """

    height: int
    width: int
    channels: int
    order: tuple[int, ...]


def image_layout(shape: tuple[int, ...]) -> ImageLayout | None:
    """How an array of `shape` may be read as an image, None if in no way.

    Read are (H, W), (H, W, C), (C, H, W), and stacks of frames: (k, H, W) or (H, W, k), (H, W, 3 k), (k, H, W, C), (k, C, H, W).
    """
    if len(shape) == 2:
        return ImageLayout(*shape, 1, (0, 1))
    if len(shape) == 3 and 1 <= shape[2] <= MOST_CHANNELS and (shape[2] in COLOURS or shape[2] <= shape[0]):
        return ImageLayout(*shape, (0, 1, 2))
    if len(shape) == 3 and 1 <= shape[0] <= MOST_CHANNELS:
        return ImageLayout(shape[1], shape[2], shape[0], (1, 2, 0))
    if len(shape) == 4 and shape[0] >= 1 and shape[3] in COLOURS and shape[0] * shape[3] <= MOST_CHANNELS:
        return ImageLayout(shape[1], shape[2], shape[0] * shape[3], (1, 2, 0, 3))
    if len(shape) == 4 and shape[0] >= 1 and shape[1] in COLOURS and shape[0] * shape[1] <= MOST_CHANNELS:
        return ImageLayout(shape[2], shape[3], shape[0] * shape[1], (2, 3, 0, 1))
    return None


def shrunk_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """Height and width after shrinking to at most `longest` pixels a side, proportions kept; 0 shrinks nothing."""
    if longest <= 0 or max(height, width) <= longest:
        return height, width
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def is_brightness(space: spaces.Space[Any]) -> bool:
    """Whether a space's numbers look like a picture's: all between 0 and 1, or all between 0 and 255."""
    if not isinstance(space, spaces.Box) or not space.low.size:
        return False
    return float(space.low.min()) >= 0 and float(space.high.max()) in (1.0, 255.0)


def can_be_image(space: spaces.Space[Any]) -> bool:
    """Whether a space holds numbers within known bounds in a shape that `image_layout` reads."""
    return isinstance(space, spaces.Box) and space.is_bounded("both") and image_layout(space.shape) is not None


def image_converter(space: spaces.Box, shape: tuple[int, ...]) -> Callable[[Any], np.ndarray]:
    """A function from a raw value of `space` to a uint8 array of `shape` (H, W, C): lowest bound 0, highest 255.

    Shrinking averages over areas (Pillow's box filter), so that a thin line grows faint but does not vanish. The function raises
    ValueError for pixels that are not finite, which no byte could show.
    """
    layout = image_layout(space.shape)
    assert layout is not None  # inference gives this kind to such spaces only
    whole = (layout.height, layout.width, layout.channels)
    low, high = float(space.low.min()), float(space.high.max())
    as_it_is = space.dtype == np.uint8 and (low, high) == (0.0, 255.0)
    scale = 255.0 / (high - low) if high > low else 0.0

    def convert(value: Any) -> np.ndarray:
        pixels = np.asarray(value).transpose(layout.order).reshape(whole)
        if not as_it_is:
            if not np.isfinite(pixels).all():
                raise ValueError("an image with pixels that are not finite")
            pixels = ((pixels.astype(np.float32) - low) * scale).round().clip(0, 255).astype(np.uint8)
        return pixels if whole == shape else _shrink(pixels, shape)

    return convert


def _shrink(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    from PIL import Image

    height, width, channels = shape
    if channels == 3:
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
    planes = (Image.fromarray(pixels[..., c]).resize((width, height), Image.Resampling.BOX) for c in range(channels))
    return np.stack([np.asarray(plane) for plane in planes], -1)


def to_colours(pixels: np.ndarray) -> np.ndarray:
    """An adapted image (H, W, C) as RGB (H, W, 3), for people to look at: of a stack the last frame, alpha left out."""
    channels = pixels.shape[-1]
    if channels == 4:
        return pixels[..., :3]  # of four grey frames, the first three in three colours: what moves leaves a coloured trace
    return pixels[..., -3:] if channels % 3 == 0 else np.repeat(pixels[..., -1:], 3, -1)
