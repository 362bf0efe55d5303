"""Random views of a batch of images, made on the device that trains."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Small enough that a digit, a cell or a shirt stays what it is.
ROTATION_DEGREES = 12.0
SCALE = 0.12
SHIFT = 0.1
SHEAR = 0.15
CONTRAST = 0.2
BRIGHTNESS = 0.1


def draw_views(n: int, generator: torch.Generator) -> torch.Tensor:
    """Draw by how much each image of a batch is changed.

    Args:
        n: Images.
        generator: Source of randomness, on the CPU so that a seed means the same on every device.

    Returns:
        float32 [8, n] in -1..1.
    """
    import torch

    return torch.rand((8, n), generator=generator) * 2 - 1


def augment(images: torch.Tensor, draws: torch.Tensor, *, flip: bool = False) -> torch.Tensor:
    """Shift, rotate, scale, shear and re-light each image by its own random amount.

    Args:
        images: float32 [n, 3, H, W] in 0..1, on any device.
        draws: float32 [8, n], what `draw_views` drew for these images.
        flip: Also mirror half of them.

    Returns:
        float32 [n, 3, H, W]; values may leave 0..1 a little, as over-exposed pictures do.
    """
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    n = len(images)
    angle = draws[0] * math.radians(ROTATION_DEGREES)
    scale = 1 + draws[1] * SCALE
    mirror = torch.where(draws[7] < 0, -1.0, 1.0) if flip else torch.ones(n)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    # affine_grid's units: the image spans -1..1, so a shift of a tenth of it is 0.2.
    rows = (
        torch.stack([cos * mirror, -sin + draws[2] * SHEAR, draws[3] * 2 * SHIFT], dim=1),
        torch.stack([sin * mirror, cos, draws[4] * 2 * SHIFT], dim=1),
    )
    matrix = torch.stack(rows, dim=1).to(images.device)
    grid = affine_grid(matrix, list(images.shape), align_corners=False)
    warped = grid_sample(images, grid, padding_mode="border", align_corners=False)
    light = draws[5:7].to(images.device)[:, :, None, None, None]
    return warped * (1 + light[0] * CONTRAST) + light[1] * BRIGHTNESS
