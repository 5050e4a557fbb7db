"""Stand-ins for models, and an evaluation made by hand."""

from __future__ import annotations

from torch import Tensor, nn

from serpent_ir.evaluation import Evaluation, FailedImage, ImageScores, ModelFacts, Scores


class Smooth(nn.Module):
    """Averages 3 x 3 neighbours."""

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)


class Same(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image.clone()


class NotFinite(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image * float("nan")


class Black(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image * 0


def evaluation(**changes: object) -> Evaluation:
    """Two images, two models; the second knows what it was trained on, and saw one of the images."""
    fields: dict[str, object] = {
        "folder": "photographs",
        "task": "deblur",
        "options": {"noise_sigma": 0.05},
        "seed": 3,
        "quantized": True,
        "models": (
            ModelFacts("serpent-b", {"model": "serpent-b"}, "deblur", "1030 images of bsd432, t91"),
            ModelFacts("other_one", {"model": "unet-32"}, "denoise", "2 images of here", True, ("b/c <1>.png",)),
        ),
        "machine": {"processor": "a processor"},
        "images": (
            ImageScores("a.png", 20, 30, "00ff", scores(20.0, 25.0, 26.0)),
            ImageScores("b/c <1>.png", 40, 50, "11ee", scores(22.0, 24.0, 24.5)),
        ),
        "failed": (FailedImage("d.png", "truncated"),),
        "ignored": ("e.heic",),
    }
    return Evaluation(**{**fields, **changes})  # type: ignore[arg-type]


def scores(degraded: float, first: float, second: float) -> dict[str, Scores]:
    return {
        "degraded": Scores(degraded, 0.5, 0.75),
        "serpent-b": Scores(first, 0.75, 0.5),
        "other_one": Scores(second, 0.75, 0.25),
    }
