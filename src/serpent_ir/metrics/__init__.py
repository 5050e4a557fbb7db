"""How close a restored image is to the clean one: one number per image."""

from serpent_ir.metrics.psnr import psnr
from serpent_ir.metrics.ssim import ssim

__all__ = ["psnr", "ssim"]
