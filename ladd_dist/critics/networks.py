"""Feature networks for a pixel critic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ladd_dist.core.errors import UserError
from ladd_dist.core.features import load_features, shrink
from ladd_dist.core.sizes import height_width
from ladd_dist.core.tensor_file import load_weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's RGB in [0, 1], by which inputs of pretrained networks are normalised."""


class Body(nn.Module):
    """Feature network: images [B,C,H,W] in [-1, 1] to features of named layers."""

    names: tuple[str, ...]
    """Names of the layers, in order of execution."""

    def forward(self, images: Tensor, taps: tuple[str, ...]) -> dict[str, Tensor]:
        """Features by name of the layers `taps`; the network stops after the last of them if it can."""
        raise NotImplementedError


class DigitColor(Body):
    """Four convolutions of the shipped digit-and-colour network, with their norm and activation."""

    names = ("conv0", "conv1", "conv2", "conv3")

    def __init__(self) -> None:
        super().__init__()
        layers = list(load_features().body)[: 3 * len(self.names)]
        self.layers = nn.ModuleDict(
            {name: nn.Sequential(*layers[3 * i : 3 * i + 3]) for i, name in enumerate(self.names)}
        )

    def forward(self, images: Tensor, taps: tuple[str, ...]) -> dict[str, Tensor]:
        x = shrink(images).contiguous(memory_format=torch.channels_last)
        found: dict[str, Tensor] = {}
        for name in self.names[: 1 + max(self.names.index(tap) for tap in taps)]:
            x = self.layers[name](x)
            if name in taps:
                found[name] = x
        return found


class Pretrained(Body):
    """Base of a library's networks, which were trained on images of ImageNet."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: int | tuple[int, int]) -> None:
        super().__init__()
        self.size = height_width(size) if size else None
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def stand(self) -> None:
        """Switch in-place operations off: the next layer could overwrite a tap."""
        for layer in self.modules():
            if hasattr(layer, "inplace"):
                setattr(layer, "inplace", False)  # noqa: B010  of whatever class it is

    def prepared(self, images: Tensor) -> Tensor:
        """Images as normalised RGB of the requested size; a single channel is taken as grey."""
        images = images.float().expand(-1, 3, -1, -1) if images.shape[1] == 1 else images.float()
        if self.size and images.shape[2:] != self.size:
            images = functional.interpolate(
                images, size=self.size, mode="bilinear", antialias=True, align_corners=False
            )
        return (images * 0.5 + 0.5 - self.mean) / self.std


class TorchVision(Pretrained):
    """Classifier of torchvision; its taps are its top-level modules."""

    def __init__(self, model: str, weights: str, size: int | tuple[int, int]) -> None:
        from torchvision import models

        super().__init__(size)
        if model not in models.list_models(module=models):
            raise UserError(
                f"torchvision has no classifier {model!r}; it has {', '.join(models.list_models(module=models))}"
            )
        self.network = models.get_model(model, weights=None).eval()
        if weights == "":
            url = models.get_model_weights(model).DEFAULT.url
            self.network.load_state_dict(
                torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
            )
        elif weights != "random":
            self.network.load_state_dict(_read(weights))
        self.stand()
        self.names = tuple(name for name, _ in self.network.named_children())
        self.cut: dict[tuple[str, ...], Any] = {}

    def forward(self, images: Tensor, taps: tuple[str, ...]) -> dict[str, Tensor]:
        from torchvision.models.feature_extraction import create_feature_extractor

        if taps not in self.cut:  # shares the network's modules, and ends at the last tap
            self.cut[taps] = create_feature_extractor(self.network, list(taps))
        found: dict[str, Tensor] = self.cut[taps](self.prepared(images))
        return found


class Timm(Pretrained):
    """Model of timm (PyTorch Image Models); its taps are timm's feature stages: stage0, stage1 and so on."""

    def __init__(self, model: str, weights: str, size: int | tuple[int, int]) -> None:
        try:
            import timm  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise UserError(
                "critic 'pixels' with source 'timm' needs the package timm, which is not installed: pip install timm; "
                "or use --critic.source torchvision"
            ) from error

        super().__init__(size)
        sized = {"img_size": size} if size and model.startswith("vit") else {}
        self.network = timm.create_model(model, pretrained=weights == "", features_only=True, **sized)
        if weights not in ("", "random"):
            self.network.load_state_dict(_read(weights))
        self.stand()
        self.names = tuple(f"stage{i}" for i in range(len(self.network.feature_info.channels())))

    def forward(self, images: Tensor, taps: tuple[str, ...]) -> dict[str, Tensor]:
        found = self.network(self.prepared(images))
        return {name: value for name, value in zip(self.names, found, strict=True) if name in taps}


def _read(path: str) -> dict[str, Tensor]:
    if not path.endswith(".safetensors") or not Path(path).exists():
        raise UserError(
            f"critic.weights: expected a .safetensors file that is there, 'random' or nothing, got {path!r}"
        )
    return load_weights(Path(path), remedy="get it again")
