"""Frames into an animated GIF of a sensible size. Pictures in, bytes out: nothing here knows of agents."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST, SHORTEST = 320, 240  # pixels of the longer side of a frame, at most and (by whole factors) at least
MAX_BYTES = 2_000_000
SHORTEST_MS = 20  # browsers slow down what asks for less
LAST_MS = 1500  # the last frame is held, so that the end can be seen
STRIP, FONT = 20, 13  # height of the text below a frame, and of its letters
COLOURS = 255


def encode_gif(
    frames: Sequence[np.ndarray], texts: Sequence[str], fps: float, max_bytes: int = MAX_BYTES, longest: int = LONGEST
) -> bytes:
    """An endless GIF of `frames`, (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), integers up to 255 or floats up to 1.

    Each has its text below. Long ones are thinned out, at the same speed, and then made smaller, until `max_bytes` hold them.
    Frames are `longest` pixels a side at most.
    """
    if len(frames) == 0 or len(frames) != len(texts):
        raise ValueError(f"{len(frames)} frames with {len(texts)} texts make no film")
    ms = max(1000 / fps, SHORTEST_MS)
    chosen = list(range(len(frames)))
    while True:
        data = _encode([_page(frames[i], texts[i], longest) for i in chosen], ms)
        if len(data) <= max_bytes or (len(chosen) <= 25 and longest <= SHORTEST):
            return data
        if len(chosen) > 100 or longest <= SHORTEST:
            chosen, ms = sorted({*chosen[::2], chosen[-1]}), 2 * ms
        else:
            longest = max(SHORTEST, longest * 3 // 4)


def as_rgb(frame: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) of a frame of any usual kind; of four channels, the first three."""
    frame = np.asarray(frame)
    if frame.dtype.kind == "f":
        frame = (np.nan_to_num(frame).clip(0, 1) * 255).round()
    frame = frame.clip(0, 255).astype(np.uint8)
    if frame.ndim == 2:
        frame = frame[..., None]
    return np.repeat(frame[..., :1], 3, axis=-1) if frame.shape[-1] < 3 else frame[..., :3]


def _page(frame: np.ndarray, text: str, longest: int) -> Image:
    """A frame, enlarged or made smaller to a size that can be seen, with its text below."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(as_rgb(frame))
    side = max(picture.size)
    if side > longest:
        size = (max(1, round(picture.width * longest / side)), max(1, round(picture.height * longest / side)))
        picture = picture.resize(size, Image.Resampling.BOX)
    elif side < SHORTEST:
        times = min(-(-SHORTEST // side), max(1, longest // side))
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    width = max(picture.width, SHORTEST)
    page = Image.new("RGB", (width, picture.height + STRIP), (20, 22, 26))
    page.paste(picture, ((width - picture.width) // 2, 0))
    ImageDraw.Draw(page).text((5, picture.height + 2), text, (235, 238, 242), ImageFont.load_default(FONT))
    return page


def _encode(pages: list[Image], ms: float) -> bytes:
    """One palette for all frames: what does not change from one to the next is then not stored again."""
    from PIL import Image

    sample = [pages[i] for i in np.unique(np.linspace(0, len(pages) - 1, 8).round().astype(int))]
    mosaic = Image.new("RGB", (max(page.width for page in sample), sum(page.height for page in sample)))
    top = 0
    for page in sample:
        mosaic.paste(page, (0, top))
        top += page.height
    palette = mosaic.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    drawn = [page.quantize(palette=palette, dither=Image.Dither.NONE) for page in pages]
    durations = [round(ms)] * (len(drawn) - 1) + [LAST_MS]
    file = io.BytesIO()
    drawn[0].save(file, "GIF", save_all=True, append_images=drawn[1:], duration=durations, loop=0, disposal=1)
    return file.getvalue()
