"""Frames to the numbers that a tower takes: resized by Pillow, cut, rescaled, normalised.

The same steps in the same order as transformers 4.40's CLIPImageProcessor and SiglipImageProcessor, which the authors
call; their successors resize by torchvision, which is neither needed here nor equal to the last digit.

T frames, H W pixels, C colours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from .frames import Frames
from .towers import Preprocessing


def to_pixels(frames_THWC: Frames, settings: Preprocessing) -> Tensor:
    """Normalised pixels (T, C, H, W), float32."""
    resized_THWC = np.stack([_resize(frame, settings) for frame in frames_THWC])
    mean, std = np.asarray(settings.mean, np.float32), np.asarray(settings.std, np.float32)
    normal_THWC = (resized_THWC.astype(np.float32) * np.float32(settings.rescale) - mean) / std
    return torch.from_numpy(np.ascontiguousarray(normal_THWC.transpose(0, 3, 1, 2)))


def _resize(frame_HWC: Frames, settings: Preprocessing) -> Frames:
    height, width = _resized_sides(frame_HWC.shape[0], frame_HWC.shape[1], settings)
    resample = Image.Resampling(settings.resample)
    resized = np.asarray(Image.fromarray(frame_HWC).resize((width, height), resample=resample))
    return _middle(resized, settings.height, settings.width)


def _resized_sides(height: int, width: int, settings: Preprocessing) -> tuple[int, int]:
    """Height and width after resizing: the shorter side becomes `shortest_edge`, the longer one keeps the ratio."""
    if settings.shortest_edge is None:
        return settings.height, settings.width
    short, long = sorted((height, width))
    longer = int(settings.shortest_edge * long / short)
    return (settings.shortest_edge, longer) if height <= width else (longer, settings.shortest_edge)


def _middle(frame_HWC: npt.NDArray[np.uint8], height: int, width: int) -> Frames:
    """The middle `height` x `width` pixels; where the frame is smaller it is set on black."""
    top, left = (frame_HWC.shape[0] - height) // 2, (frame_HWC.shape[1] - width) // 2
    if top >= 0 and left >= 0:
        return frame_HWC[top : top + height, left : left + width]
    canvas = np.zeros((max(height, frame_HWC.shape[0]), max(width, frame_HWC.shape[1]), 3), dtype=np.uint8)
    y, x = (canvas.shape[0] - frame_HWC.shape[0]) // 2, (canvas.shape[1] - frame_HWC.shape[1]) // 2
    canvas[y : y + frame_HWC.shape[0], x : x + frame_HWC.shape[1]] = frame_HWC
    return _middle(canvas, height, width)
