"""How close a restored image is to the clean one: one number per image."""

from serpent_ir.metrics.lpips import Lpips
from serpent_ir.metrics.lpips_weights import load_lpips
from serpent_ir.metrics.luma import luma
from serpent_ir.metrics.psnr import HIGHEST_PSNR, capped_psnr, psnr
from serpent_ir.metrics.ssim import ssim

__all__ = ["HIGHEST_PSNR", "Lpips", "capped_psnr", "load_lpips", "luma", "psnr", "ssim"]
