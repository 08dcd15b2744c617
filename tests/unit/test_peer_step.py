"""`benchmarks/peer_step.py` on a stand-in for the peer: a package with its names, made here, with none of its code."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch

from benchmarks import _peer, _runs, peer_step
from benchmarks._peer import KNOWN, load_peer
from benchmarks._peer_networks import PeerDenoiser
from benchmarks._peer_sides import OURS, PEER, SIDES, STEP_ALONE, Order, make
from benchmarks.peer_step import faster, main

REPO = Path(__file__).parents[2]
CPU = torch.device("cpu")
NOT_THERE = "a_package_that_nobody_has"
FILES = {
    "configs/methods/config_ladd.py": """
        from types import SimpleNamespace


        class ModelConfig:
            def __init__(self):
                self.device, self.precision, self.pretrained_model_path = "", "", None
                self.student_update_freq = self.student_sample_steps = 0
                self.gan_use_same_t_noise = False
                self.net = SimpleNamespace(model_channels=8)
                self.discriminator = SimpleNamespace(in_channels=0)
        """,
    "utils/logging_utils.py": """
        def set_log_level(level):
            print("a log that would spoil our figures")
        """,
    "methods/__init__.py": """
        import torch
        from torch import nn
        from torch.nn import functional


        class Net(nn.Module):
            img_resolution, img_channels, label_dim = 8, 3, 4

            def __init__(self, channels):
                super().__init__()
                self.stem = nn.Conv2d(3, channels, 3, padding=1)
                self.labels = nn.Linear(4, channels)
                self.wide = nn.Conv2d(channels, channels, 3, padding=1)
                self.deep = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
                self.out = nn.Conv2d(channels, 3, 3, padding=1)

            def forward(self, x, t, condition=None, return_features_early=False, feature_indices=()):
                assert x.is_contiguous()
                stem = functional.silu(self.stem(x) + self.labels(condition)[:, :, None, None])
                wide = functional.silu(self.wide(stem))
                found = [wide, functional.silu(self.deep(wide))]
                features = [found[index] for index in sorted(feature_indices)]
                if return_features_early:
                    return features
                denoised = x / (1 + t.view(-1, 1, 1, 1).to(x.dtype)) + self.out(wide)
                return [denoised, features] if feature_indices else denoised


        class Discriminator(nn.Module):
            feature_indices, in_res = {0, 1}, [8, 4]

            def __init__(self, channels):
                super().__init__()
                self.in_channels = channels
                heads = [nn.Sequential(nn.Conv2d(channels, 1, res), nn.Flatten()) for res in self.in_res]
                self.discriminator_heads = nn.ModuleList(heads)

            def forward(self, features):
                return torch.cat([head(feature) for head, feature in zip(self.discriminator_heads, features)], dim=1)


        class LADDModel(nn.Module):
            def __init__(self, config):
                super().__init__()
                assert config.student_update_freq == 2 and config.discriminator.in_channels == 64
                self.net, self.teacher = Net(64), Net(64).eval().requires_grad_(False)
                self.discriminator = Discriminator(64)
                self.iterations = []

            def on_train_begin(self):
                pass

            def init_optimizers(self):
                self.optimizers = [torch.optim.Adam(part.parameters()) for part in (self.net, self.discriminator)]

            def optimizers_zero_grad(self, iteration):
                self.optimizers[iteration % 2].zero_grad()

            def optimizers_schedulers_step(self, iteration):
                self.optimizers[iteration % 2].step()

            def features(self, x, t, condition):
                return self.teacher(x, t, condition, return_features_early=True, feature_indices={0, 1})

            def single_train_step(self, data, iteration):
                self.iterations.append(iteration)
                real, condition, t = data["real"], data["condition"], torch.ones(len(data["real"]))
                with torch.set_grad_enabled(iteration % 2 == 0):
                    fake = self.net(real + torch.randn_like(real), t, condition)
                    on_fake = self.features(fake, t, condition)
                if iteration % 2 == 0:
                    return {"total_loss": functional.softplus(-self.discriminator(on_fake)).mean()}, {}
                on_real = self.features(real, t, condition)
                real_logits, fake_logits = self.discriminator(on_real), self.discriminator(on_fake)
                return {"total_loss": (functional.softplus(fake_logits) + functional.softplus(-real_logits)).mean()}, {}
        """,
}


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A stand-in checkout; its modules are forgotten after the test."""
    before = set(sys.modules)
    for name, text in FILES.items():
        write(tmp_path, name, text)
    for folder in (".", "configs", "configs/methods", "utils"):
        write(tmp_path, f"{folder}/__init__.py", "")
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == _peer.PACKAGE:
            del sys.modules[name]


def write(root: Path, name: str, text: str) -> None:
    file = root / _peer.PACKAGE / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(dedent(text), encoding="utf-8")


def refused(path: Path) -> str:
    """The one message with which a checkout is refused."""
    with pytest.raises(SystemExit) as error:
        load_peer(path, CPU)
    message = str(error.value)
    assert "\n" not in message
    return message


def of_side(checkout: Path, side: str) -> Order:
    return Order(side, checkout, batch_size=4, threads=1, device=CPU)


def test_the_benchmark_imports_nothing_of_the_peer_by_itself() -> None:
    assert _peer.PACKAGE not in sys.modules
    for file in (REPO / "benchmarks").glob("*.py"):
        assert f"import {_peer.PACKAGE}" not in file.read_text() and f"from {_peer.PACKAGE}" not in file.read_text()


def test_a_path_without_a_checkout_gets_one_message_with_the_line_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match=rf"{tmp_path} is no checkout of .*lacks fastgen/__init__.py; .*git clone .*{KNOWN}"
    ):
        main(["--peer", str(tmp_path)])


@pytest.mark.parametrize("flag", ["--rounds", "--threads", "--batch"])
def test_a_number_below_one_is_refused(flag: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="must be 1 or more"):
        main(["--peer", str(tmp_path), flag, "0"])


def test_a_missing_package_is_named_with_the_others_and_the_line_that_installs_them_elsewhere(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_peer, "REQUIRED", {"torch": "torch", "also_missing": "its-name-for-pip==1.2"})
    write(checkout, "utils/logging_utils.py", f"import {NOT_THERE}")
    message = refused(checkout)
    assert f"packages that are not installed: {NOT_THERE}, also_missing." in message
    assert f"pip install --no-deps --target peer-packages {NOT_THERE} its-name-for-pip==1.2;" in message
    assert "PYTHONPATH=peer-packages" in message and "torch" not in message


def test_an_installed_package_that_lacks_what_the_peer_asks_is_not_called_missing(checkout: Path) -> None:
    write(checkout, "utils/logging_utils.py", "from torch import what_it_never_had")
    assert refused(checkout).startswith("the peer does not go with the torch that is installed: cannot import name")


def test_another_version_is_refused_with_all_names_that_it_lacks_and_the_commit_that_has_them(checkout: Path) -> None:
    write(checkout, "utils/logging_utils.py", "")
    (checkout / "fastgen" / "configs" / "methods" / "config_ladd.py").unlink()
    message = refused(checkout)
    assert "fastgen.configs.methods.config_ladd (No module named" in message
    assert "fastgen.utils.logging_utils.set_log_level" in message and KNOWN in message


@pytest.mark.parametrize(
    ("file", "old", "new", "lacking"),
    [
        ("configs/methods/config_ladd.py", "in_channels=0", "width=0", ["ModelConfig.discriminator.in_channels"]),
        ("methods/__init__.py", "discriminator_heads", "parts", ["LADDModel.discriminator.discriminator_heads"]),
        ("methods/__init__.py", "_train", "_training", ["LADDModel.on_train_begin", "LADDModel.single_train_step"]),
    ],
)
def test_a_version_whose_model_has_other_names_is_refused_by_them(
    checkout: Path, file: str, old: str, new: str, lacking: list[str]
) -> None:
    write(checkout, file, FILES[file].replace(old, new))
    assert f"it lacks {', '.join(lacking)}; commit {KNOWN}" in refused(checkout)


def test_a_package_of_that_name_from_elsewhere_is_not_taken_for_the_checkout(checkout: Path, tmp_path: Path) -> None:
    load_peer(checkout, CPU)
    other = tmp_path / "other"
    write(other, "__init__.py", "")
    assert f"was imported from {checkout / 'fastgen'} before, not from {other}" in refused(other)


def test_loading_the_peer_prints_nothing_and_leaves_the_import_path_as_it_was(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = list(sys.path)
    assert load_peer(checkout, CPU).commit in ("unknown", _peer.commit_of(checkout))
    assert sys.path == before and capsys.readouterr() == ("", "")


def test_the_adapter_gives_what_the_peers_network_gives_and_zeros_for_no_class(checkout: Path) -> None:
    model = load_peer(checkout, CPU).model
    network = PeerDenoiser(model.net, model.discriminator)
    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    sigma, cond = torch.tensor([0.5, 3.0]), torch.tensor([1, 4])
    condition = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    denoised, features = model.net(x.contiguous(), sigma, condition, feature_indices={0, 1})
    taps = tuple(network.taps)
    whole, early = network(x, sigma, cond, taps=taps), network(x, sigma, cond, taps=taps[1:], denoise=False)
    assert torch.equal(whole.denoised, denoised) and early.denoised is None
    assert torch.equal(network(x, sigma, cond).denoised, denoised)
    assert [torch.equal(whole.features[tap], own) for tap, own in zip(taps, features, strict=True)] == [True, True]
    assert list(early.features) == ["feature1"] and torch.equal(early.features["feature1"], features[1])
    assert [(spec.channels, spec.stride) for spec in network.taps.values()] == [(64, 1), (64, 2)]


def parts_of(step_or_model: Any, *names: str) -> list[torch.Tensor]:
    return [torch.cat([p.detach().flatten() for p in getattr(step_or_model, name).parameters()]) for name in names]


@pytest.mark.parametrize("side", SIDES)
def test_a_cycle_of_each_side_trains_student_and_heads_from_the_same_weights_and_no_teacher(
    checkout: Path, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(
        "benchmarks._peer_sides.load_peer", lambda *given: loaded.append(load_peer(*given)) or loaded[0]
    )
    monkeypatch.setattr("benchmarks._peer_sides.count_flops", lambda call: 2_000_000_000)
    facts, cycle = make(of_side(checkout, side))
    torch.manual_seed(0)
    fresh, names = load_peer(checkout, CPU).model, ("net", "discriminator", "teacher")
    before = parts_of(loaded[0].model, *names)
    assert all(map(torch.equal, before, parts_of(fresh, *names)))
    cycle(0)
    student, heads, teacher = map(torch.equal, before, parts_of(loaded[0].model, *names))
    assert not student and not heads and teacher
    assert facts.gflop == 2.0 and loaded[0].model.iterations == ([0, 1] if side == PEER else [])


def test_our_cycle_does_less_work_than_the_peers(checkout: Path) -> None:
    flops = {side: make(of_side(checkout, side))[0].gflop for side in SIDES}
    assert 0.7 < flops[OURS] / flops[PEER] < 0.85 and flops[OURS] == flops[STEP_ALONE]


def test_the_ratio_pairs_the_cycles_of_a_round() -> None:
    """What slows a whole round down does not count; where one cycle alone is slow, the interval says so."""
    assert faster([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == {"ratio": 2.0, "interval": [2.0, 2.0]}
    found = faster([2.0, 2.2, 2.1, 2.0, 6.0], [1.0, 1.0, 1.0, 1.0, 1.0])
    assert found["ratio"] == 2.1 and found["interval"] == [2.0, 6.0]


@pytest.mark.slow
def test_the_whole_benchmark_prints_and_keeps_the_figures_of_every_side(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "kept.json"
    monkeypatch.setattr(peer_step, "STORE", store)
    monkeypatch.setattr(_runs, "current_commit", lambda: "0123456789")
    assert main(["--peer", str(checkout), "--batch", "2", "--rounds", "2", "--json", "--write"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads(store.read_text())
    (case,) = result["cases"]
    assert {name: len(times) for name, times in case["seconds"].items()} == dict.fromkeys(SIDES, 2)
    assert case["gflop"][OURS] < case["gflop"][PEER] and set(case["faster"]) == {OURS, STEP_ALONE}
    peer_step.show(result)
    printed = capsys.readouterr().out
    for wanted in (
        "batch 2, 2 rounds",
        "seconds (median)",
        "GFLOP/s",
        "times faster (aim 1.35)",
        "parameters: student",
    ):
        assert wanted in printed


def test_a_side_that_cannot_be_made_ends_the_benchmark_with_its_message(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_step, "SIDES", (PEER,))
    write(checkout, "utils/logging_utils.py", f"import {NOT_THERE}")
    with pytest.raises(SystemExit, match=f"packages that are not installed: {NOT_THERE}"):
        main(["--peer", str(checkout), "--batch", "2"])


def test_figures_of_code_that_is_not_committed_are_not_kept(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_runs, "current_commit", lambda: "0123456789-dirty")
    with pytest.raises(SystemExit, match="uncommitted changes"):
        main(["--peer", str(checkout), "--write"])
