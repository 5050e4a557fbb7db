"""What every registered model must do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tolerances import RELATIVE, relative_error

from serpent_ir.errors import ShapeError
from serpent_ir.models import create_model, load_model, save_model


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (33, 17), (64, 40)])
def test_any_size_in_same_size_out(name: str, size: tuple[int, int]) -> None:
    model = create_model(name).eval()
    with torch.no_grad():
        output = model(torch.rand(3 if size == (33, 17) else 1, 3, *size))
    upscale = getattr(model.config, "upscale", 1)
    assert output.shape[1:] == (3, upscale * size[0], upscale * size[1]) and output.isfinite().all()


def test_images_of_a_batch_do_not_mix(name: str) -> None:
    model = create_model(name).eval()
    images = torch.rand(3, 3, 34, 20)
    with torch.no_grad():
        together, alone = model(images), torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_close_to_float32(name: str) -> None:
    model = create_model(name).eval()
    image = torch.rand(1, 3, 24, 24)
    with torch.no_grad():
        exact = model(image)
        half = model.to(torch.bfloat16)(image.to(torch.bfloat16))
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model.float()(image)  # weights rounded to bfloat16 by the line above
    assert half.dtype == torch.bfloat16
    for output in (half, mixed):
        assert (output.float() - exact).abs().max() < 0.05 * exact.abs().max().clamp_min(1)


def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = create_model(name)
    output = model(torch.rand(2, 3, 64, 32))
    (output - torch.rand_like(output)).square().mean().backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == []


def test_save_and_load_by_value(name: str, tmp_path: Path) -> None:
    model = create_model(name).eval()
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    image = torch.rand(1, 3, 20, 20)
    with torch.no_grad():
        assert torch.equal(loaded(image), model(image))
    assert loaded.config == model.config and not loaded.training


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's own
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("name", ["serpent-b", "unet-32"])  # those of other sizes have the same graphs
def test_compiled_is_equal(name: str) -> None:
    model = create_model(name).eval()
    image = torch.rand(2, 3, 36, 20)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True)(image)
        assert relative_error(compiled, model(image)) < RELATIVE[torch.float32]


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8), (1, 3, 0, 8), (1, 1, 3, 8, 8)])
def test_wrong_shapes_are_named(name: str, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        model = create_model(name)
    with pytest.raises(ShapeError, match=r"expected \(B, 3, H, W\)"):
        model(torch.zeros(shape))


@pytest.mark.gpu
def test_cuda_is_close_to_the_cpu(name: str) -> None:
    model = create_model(name).eval()
    image = torch.rand(2, 3, 70, 90)
    with torch.no_grad():
        expected = model(image)
        output = model.cuda()(image.cuda()).cpu()
    assert relative_error(output, expected) < 1e-2  # convolutions may run in TF32, 10 bits a factor
