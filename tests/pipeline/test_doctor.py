"""`ladd doctor`: exit codes and output, and plug-ins that are wrong in one place each."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from processes import REPO, Done, Ladd
from torch import Tensor, nn
from tuned import tune_recipe, write_pictures, write_student

from ladd_dist.core.plugin import register
from ladd_dist.core.types import Batch, NetOutput
from ladd_dist.doctor import examine_all, main
from ladd_dist.heads import Head
from ladd_dist.losses import Adversarial, Distance
from ladd_dist.networks.cunet import CUNet, UNet
from ladd_dist.preflight.check import Finding
from ladd_dist.preflight.service_checks import requeueing
from ladd_dist.recipe import Recipe, load_recipe, swap
from ladd_dist.samplers.karras import Euler
from ladd_dist.sigmas import SigmaLaw
from ladd_dist.starts import Start
from ladd_dist.workspace.workspace import Workspace

EXP6 = REPO / "recipes" / "exp6_stored_noise.py"


pytestmark = pytest.mark.usefixtures("own_tables")


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe(EXP6, "smoke")


def look(recipe: Recipe, folder: Path, *only: str) -> dict[str, Finding]:
    """Findings by name, where nothing was ever trained."""
    found = examine_all(recipe, Workspace(folder / "runs", folder / "cache", torch.device("cpu")), only)
    return {finding.name: finding for finding in found}


def one(recipe: Recipe, folder: Path, name: str) -> Finding:
    return look(recipe, folder, name)[name]


# --- the command ---


def call(capsys: pytest.CaptureFixture[str], *words: object) -> Done:
    capsys.readouterr()
    code = main([str(word) for word in words])
    return Done(code, *capsys.readouterr())


def test_a_finished_cache_is_looked_at_and_nothing_is_left(
    smoke: tuple[Done, Ladd], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {path: path.stat().st_mtime_ns for path in smoke[1].cache.rglob("*")}
    done = call(capsys, EXP6, "--scale", "smoke", "--cache", smoke[1].cache, "--json")
    facts = json.loads(done.stdout)
    states = {check["name"]: check["state"] for check in facts["checks"]}
    assert done.code == 0, [check for check in facts["checks"] if check["state"] == "fail"]
    assert states["stored-noise"] == states["teacher-x0"] == states["samples"] == "pass"
    assert facts["counts"] == {state: list(states.values()).count(state) for state in facts["counts"]}
    assert sum(facts["counts"].values()) == len(states) == len(facts["checks"]), "names are unique"
    assert (facts["recipe"], facts["scale"]) == ("exp6_stored_noise", "smoke")
    assert {path: path.stat().st_mtime_ns for path in smoke[1].cache.rglob("*")} == files
    assert not list(tmp_path.iterdir())


def test_without_a_recipe_the_machine_alone_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(capsys, "--json")
    facts = json.loads(done.stdout)
    assert done.code == 0, facts
    assert facts["recipe"] is None and {check["group"] for check in facts["checks"]} == {"environment"}


def test_a_failure_is_shown_with_cause_and_cure_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    words = [EXP6, "--scale", "smoke", "--only", "disk", "--cache", tmp_path, "--out", tmp_path]
    assert call(capsys, *words).code == 0
    done = call(capsys, *words, "--shards.num-samples", 10**12)
    assert done.code == 1
    assert re.search(
        r"FAIL disk: --cache .* [kMGTPE]B are needed, .* [kMGTPE]B are free\n  cause: .*\n  cure: .*--cache",
        done.stdout,
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([EXP6, "--only", "nothing"], "there is no check 'nothing'; checks: python, accelerator"),
        (["--head.width", "3"], "fields are those of a recipe; name its file first"),
        ([REPO / "recipes" / "missing.py"], "does not exist"),
    ],
)
def test_a_wrong_command_line_is_one_message_and_2(
    words: list[Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done = call(capsys, *words)
    assert done.code == 2
    assert message in done.stderr


def test_where_nothing_was_trained_the_checks_that_need_it_say_what_to_run(recipe: Recipe, tmp_path: Path) -> None:
    found = look(recipe, tmp_path, "build", "teacher-x0", "stored-noise", "samples", "step")
    assert {name: finding.state for name, finding in found.items()} == {
        "build": "pass", "teacher-x0": "skipped", "stored-noise": "skipped", "samples": "skipped", "step": "pass",
    }  # fmt: skip
    assert "--stages teacher,shards" in found["stored-noise"].cure


@pytest.mark.parametrize(
    "name",
    ["exp1_smallconv", "exp7_stored_smooth_l1", "control_stored_distill_only", "add_digits", "ot_coupling", "ladd"],
)
def test_every_kind_of_recipe_is_well(name: str, tmp_path: Path) -> None:
    found = look(load_recipe(REPO / "recipes" / f"{name}.py", "smoke"), tmp_path)
    assert not [finding for finding in found.values() if finding.state == "fail"]


@pytest.mark.slow
def test_a_tuning_is_well(tmp_path: Path) -> None:
    write_student(tmp_path)
    write_pictures(tmp_path / "pictures", 20)
    found = look(tune_recipe(tmp_path), tmp_path)
    assert not [finding for finding in found.values() if finding.state == "fail"]
    assert {found[name].state for name in ("build", "compared", "sampler-coupling", "step", "resume")} == {"pass"}


def test_path_coupling_micro_batches_bf16_and_a_strategy_are_well(recipe: Recipe, tmp_path: Path) -> None:
    for assignment in ("start=path", "head=max_pool", "adversarial=relativistic", "parallel=fsdp"):
        recipe = swap(recipe, assignment)
    compute = dataclasses.replace(recipe.train.compute, precision="bf16", accumulate=2)
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, mode="alternate", compute=compute))
    found = look(recipe, tmp_path)
    assert not [finding for finding in found.values() if finding.state == "fail"]
    assert found["strategy"].state == "pass"


def test_a_network_that_predicts_epsilon_is_well_before_it_was_trained(recipe: Recipe, tmp_path: Path) -> None:
    """Its first samples are as large as the noise."""
    network = dataclasses.replace(recipe.network, precondition="ddpm")
    found = look(dataclasses.replace(recipe, network=network), tmp_path, "student-input", "sampler-coupling", "step")
    assert {finding.state for finding in found.values()} == {"pass"}


# --- plug-ins that are wrong ---


class Wrong(Start):
    rule = "ode"


@register("wrong_noise_alone")
@dataclass(frozen=True)
class NoiseAlone(Wrong):
    """Pure noise whatever the level."""

    def __call__(self, batch: Batch, sigma: Tensor, eps: Tensor) -> Tensor:
        assert batch.noise is not None
        return sigma.view(-1, 1, 1, 1) * batch.noise


@register("wrong_first_level")
@dataclass(frozen=True)
class FirstLevel(Wrong):
    """The level of sample 0 for all."""

    def __call__(self, batch: Batch, sigma: Tensor, eps: Tensor) -> Tensor:
        assert batch.noise is not None
        return batch.x0 + sigma[0] * batch.noise


@register("wrong_scaled")
@dataclass(frozen=True)
class Scaled(Wrong):
    """Variance in place of standard deviation."""

    def __call__(self, batch: Batch, sigma: Tensor, eps: Tensor) -> Tensor:
        assert batch.noise is not None
        return batch.x0 + sigma.view(-1, 1, 1, 1).square() * batch.noise


@register("wrong_shuffled")
@dataclass(frozen=True)
class Shuffled(Wrong):
    """The noise of the next sample."""

    def __call__(self, batch: Batch, sigma: Tensor, eps: Tensor) -> Tensor:
        assert batch.noise is not None
        return batch.x0 + sigma.view(-1, 1, 1, 1) * batch.noise.roll(1, 0)


@register("wrong_rule")
@dataclass(frozen=True)
class WrongRule(Wrong):
    """Fresh noise, sampled as if it were stored."""

    def __call__(self, batch: Batch, sigma: Tensor, eps: Tensor) -> Tensor:
        return batch.x0 + sigma.view(-1, 1, 1, 1) * eps


@pytest.mark.parametrize(
    ("start", "check", "message"),
    [
        (NoiseAlone(), "student-input", "pure noise whatever the level"),
        (FirstLevel(), "student-input", "one sample's level for all"),
        (Scaled(), "student-input", "not of unit variance"),
        (Shuffled(), "sampler-coupling", "not the sample's own"),
        (WrongRule(), "sampler-coupling", "feeds fresh noise and is sampled by 'ode'"),
    ],
)
def test_a_wrong_start_is_seen(start: Start, check: str, message: str, recipe: Recipe, tmp_path: Path) -> None:
    finding = one(dataclasses.replace(recipe, start=start), tmp_path, check)
    assert finding.state == "fail"
    assert re.search(message, f"{finding.found} {finding.cause}"), finding


@register("wrong_one_level")
@dataclass(frozen=True)
class OneLevel(SigmaLaw):
    """One level for the whole batch."""

    def __call__(self, num: int, step: int, generator: torch.Generator, *, levels: tuple[float, ...]) -> Tensor:
        return torch.exp(torch.randn(1, generator=generator)).expand(num)


@register("wrong_own_dice")
@dataclass(frozen=True)
class OwnDice(SigmaLaw):
    """Draws from the global generator."""

    def __call__(self, num: int, step: int, generator: torch.Generator, *, levels: tuple[float, ...]) -> Tensor:
        return torch.exp(torch.randn(num))


@pytest.mark.parametrize("field", ["student_sigma", "renoise_sigma"])
def test_a_law_that_draws_one_level_a_batch_is_seen(field: str, recipe: Recipe, tmp_path: Path) -> None:
    finding = one(dataclasses.replace(recipe, **{field: OneLevel()}), tmp_path, "levels-per-sample")
    assert finding.state == "fail" and finding.found.startswith(f"{field}: sigma law 'wrong_one_level'")


def test_a_constant_level_is_a_choice(recipe: Recipe, tmp_path: Path) -> None:
    one_call = dataclasses.replace(recipe, student_steps=1)
    assert one(one_call, tmp_path, "levels-per-sample").state == "pass"


def test_a_law_that_draws_by_itself_does_not_resume(recipe: Recipe, tmp_path: Path) -> None:
    finding = one(dataclasses.replace(recipe, renoise_sigma=OwnDice()), tmp_path, "resume")
    assert finding.state == "fail" and "do not follow from seed and step" in finding.cause


@register("wrong_sum")
@dataclass(frozen=True)
class Sum(Distance):
    """Summed over the batch."""

    def __call__(self, sample: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
        return (sample.float() - target.float()).square().mean(dim=(1, 2, 3)).sum()


@pytest.mark.parametrize("check", ["plug-ins", "accumulation", "statistics"])
def test_a_distance_that_sums_over_the_batch_is_seen(check: str, recipe: Recipe, tmp_path: Path) -> None:
    assert one(dataclasses.replace(recipe, distance=Sum()), tmp_path, check).state == "fail"


@register("wrong_mean_first")
@dataclass(frozen=True)
class MeanFirst(Adversarial):
    """A hinge on the mean of the logits."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return torch.relu(1 - real.mean()) + torch.relu(1 + fake.mean())

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return -fake.mean()


def test_a_game_that_averages_before_the_non_linearity_is_seen(recipe: Recipe, tmp_path: Path) -> None:
    finding = one(dataclasses.replace(recipe, adversarial=MeanFirst()), tmp_path, "plug-ins")
    assert finding.state == "fail" and "adversarial: adversarial 'wrong_mean_first'" in finding.found


def head_of(build: Callable[[int], nn.Module]) -> Head:
    @register("wrong_head")
    @dataclass(frozen=True)
    class Built(Head):
        """A head under test."""

        def build(self, *, channels: int, cond_dim: int) -> nn.Module:
            return build(channels)

    return Built()


class Plain(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out = nn.Conv2d(channels, 1, 1)

    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        logits: Tensor = self.out(torch.tanh(features)).mean(dim=(2, 3))
        return logits


class Normed(Plain):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        return super().forward(self.norm(features), cond_vec)


class Counting(Plain):
    """Learns in eval mode too."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        self.get_buffer("mean").lerp_(features.detach().mean(), 0.1)
        return super().forward(features - self.get_buffer("mean").clone(), cond_vec)


class Following(Counting):
    """A running mean, as a head may have it: it stands still in eval mode, and moves by more than the weights."""

    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        if self.training:
            self.get_buffer("mean").add_(1.0)
        return Plain.forward(self, features, cond_vec)


class Forgetful(Plain):
    """Keeps a number where no checkpoint finds it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.scale = 1.0

    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        if self.training:
            self.scale *= 1.5
        return self.scale * super().forward(features, cond_vec)


class Placed(Plain):
    """Looks at the place in the batch."""

    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        return super().forward(features, cond_vec) + torch.linspace(-1, 1, len(features))[:, None]


class Deaf(Plain):
    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        return super().forward(features.detach(), cond_vec)


@pytest.mark.parametrize(
    ("module", "checks"),
    [
        (Plain, ()),
        (Following, ()),
        (Normed, ("plug-ins", "accumulation")),
        (Counting, ("plug-ins", "frozen-heads")),
        (Forgetful, ("resume",)),
        (Placed, ("plug-ins", "real-real")),
        (Deaf, ("plug-ins",)),
    ],
)
def test_a_wrong_head_is_seen(module: type[Plain], checks: tuple[str, ...], recipe: Recipe, tmp_path: Path) -> None:
    names = ("plug-ins", "real-real", "step", "gradients", "frozen-heads", "accumulation", "rates", "resume")
    found = look(dataclasses.replace(recipe, head=head_of(module)), tmp_path, *names)
    failed = {name for name, finding in found.items() if finding.state == "fail"}
    assert failed >= set(checks), found
    assert checks or not failed, found


@register("wrong_end")
@dataclass(frozen=True)
class EndsEarly(Euler):
    """Its last level is not 0."""

    def __call__(self, denoise: Any, noise: Tensor, cond: Tensor, *, record: tuple[float, ...] = ()) -> Any:
        x, path = super().__call__(denoise, noise, cond, record=record)
        return x + 0.05 * noise, path


def test_a_sampler_that_ends_early_is_seen(recipe: Recipe, tmp_path: Path) -> None:
    shards = dataclasses.replace(recipe.shards, sampler=EndsEarly())
    finding = one(dataclasses.replace(recipe, shards=shards), tmp_path, "last-level")
    assert finding.state == "fail" and "shards.sampler leaves noise of 0.05" in finding.found


class Cut(UNet):
    blind: ClassVar[str] = "middle"

    def forward(self, *args: Any, **kwargs: Any) -> NetOutput:
        out = super().forward(*args, **kwargs)
        return out._replace(features={t: f.detach() if t == self.blind else f for t, f in out.features.items()})


@register("wrong_network")
@dataclass(frozen=True)
class CutNet(CUNet):
    """A tap without a gradient."""

    def build(self, *, image: Any) -> Any:
        network = super().build(image=image)
        network.__class__ = Cut
        return network


def test_a_tap_without_a_gradient_is_seen(recipe: Recipe, tmp_path: Path) -> None:
    fields = {field.name: getattr(recipe.network, field.name) for field in dataclasses.fields(recipe.network)}
    finding = one(dataclasses.replace(recipe, network=CutNet(**fields)), tmp_path, "teacher-differentiable")
    assert finding.state == "fail" and finding.found == "tap 'middle' has no gradient"


def test_a_plugin_that_raises_is_a_finding_and_the_others_are_looked_at(recipe: Recipe, tmp_path: Path) -> None:
    class Raises(Plain):
        def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
            raise RuntimeError("on purpose")

    found = look(dataclasses.replace(recipe, head=head_of(Raises)), tmp_path, "step", "rates", "last-level")
    assert found["step"].state == "fail" and found["step"].found == "RuntimeError: on purpose"
    assert "test_doctor.py" in found["step"].cause
    assert found["rates"].state == "skipped" and found["last-level"].state == "pass"


def test_a_recipe_that_cannot_be_put_together_is_one_failure(recipe: Recipe, tmp_path: Path) -> None:
    recipe = dataclasses.replace(swap(recipe, "taps=named"), seed=1)
    recipe = dataclasses.replace(recipe, taps=dataclasses.replace(recipe.taps, names=("nowhere",)))
    found = look(recipe, tmp_path, "memory", "disk", "build", "step", "rates")
    assert {name: finding.state for name, finding in found.items()} == {
        "memory": "skipped", "disk": "skipped", "build": "fail", "step": "skipped", "rates": "skipped",
    }  # fmt: skip
    assert "nowhere" not in found["disk"].found and "`build`" in found["disk"].cure
    alone = look(recipe, tmp_path, "disk")  # nothing else could say it
    assert alone["disk"].state == "fail" and "nowhere" in alone["disk"].found
    assert "nowhere" in found["build"].found and "Error" not in found["build"].found
    assert found["build"].cause == "" and found["build"].cure == ""  # the message says what to do; no file is at fault


# --- damaged caches ---


def test_a_flipped_bit_in_the_shards_is_seen(recipe: Recipe, smoke: tuple[Done, Ladd], tmp_path: Path) -> None:
    shutil.copytree(smoke[1].cache, tmp_path / "cache")
    (folder,) = [path for path in (tmp_path / "cache").glob("shards-*") if path.is_dir()]
    shard = folder / "000000.tar"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 64
    shard.write_bytes(data)
    finding = one(recipe, tmp_path, "samples")
    assert finding.state == "fail" and "is damaged" in finding.found


def test_a_teacher_that_is_not_the_one_of_the_shards_is_seen(
    recipe: Recipe, smoke: tuple[Done, Ladd], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(smoke[1].cache, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("teacher-*/teacher.safetensors")
    assert one(recipe, tmp_path, "stored-noise").state == "pass"
    save_file({name: 1.2 * value for name, value in load_file(path).items()}, path)
    finding = one(recipe, tmp_path, "stored-noise")
    assert finding.state == "fail" and "away from the stored one" in finding.found


# --- the machine ---


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_seen(recipe: Recipe, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    finding = one(recipe, tmp_path, "disk")
    tmp_path.chmod(0o700)
    assert finding.state == "fail" and "cannot be written to" in finding.found


def test_a_step_that_does_not_fit_into_memory_is_seen(recipe: Recipe, tmp_path: Path) -> None:
    large = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, batch_size=10_000_000))
    finding = one(large, tmp_path, "memory")
    assert finding.state == "fail" and "--train.batch-size" in finding.cure


@pytest.mark.usefixtures("no_wandb_key")
def test_a_tracker_without_a_key_is_a_warning(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    finding = one(swap(recipe, "tracker=wandb"), tmp_path, "wandb")
    assert finding.state == "warn" and "wandb login" in finding.cure
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert one(swap(recipe, "tracker=wandb"), tmp_path, "wandb").state == "pass"
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert "does not answer" in one(swap(recipe, "tracker=wandb"), tmp_path, "wandb").found


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            "JobRequeue         = 1\nRequeueExit        = 75,99\n",
            "are requeued too, and one that ends with code 75 is req",
        ),
        ("JobRequeue = 0\nRequeueExit             = (null)\n", "need --requeue, and one that ends with code 75 is not"),
    ],
)
def test_what_slurm_says_about_requeueing_is_read(config: str, said: str) -> None:
    assert said in requeueing(config)
