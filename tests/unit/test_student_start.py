"""A student that does not start from its teacher: what it may start from, and what is refused in one line."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_diffusers import LATENTS, write_model

from ladd_dist.builders.networks import save_weights
from ladd_dist.builders.student import load_student, new_student, save_student
from ladd_dist.builders.student_file import load_student as load_anywhere
from ladd_dist.builders.student_start import keep_start, read_start, require_start
from ladd_dist.builders.teacher import fresh_network, load_start, load_teacher
from ladd_dist.core.errors import UserError
from ladd_dist.core.serialize import from_data, to_data
from ladd_dist.datasets.prompts import Prompts
from ladd_dist.networks.cunet import CUNet
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.recipe import Recipe, load_recipe
from ladd_dist.students.adapter import adaptable, adapter_state, add_adapter
from ladd_dist.students.full import Full
from ladd_dist.students.lora import Lora
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

REPO = Path(__file__).resolve().parent.parent.parent
NETWORK = CUNet(widths=(8, 8), blocks=1, patch=2, embed_dim=16)


@pytest.fixture(scope="module")
def smoke() -> Recipe:
    return dataclasses.replace(load_recipe(REPO / "recipes" / "exp4_specnorm.py", "smoke"), network=NETWORK)


@pytest.fixture
def run(smoke: Recipe, tmp_path: Path) -> Callable[..., Run]:
    """A run with a teacher of random weights, and changes of its recipe."""

    def make(**changes: Any) -> Run:
        recipe = dataclasses.replace(smoke, **changes)
        made = Run(recipe, Workspace(tmp_path / "runs", tmp_path / "cache", torch.device("cpu")))
        made.teacher_folder.mkdir(parents=True, exist_ok=True)
        save_weights(made.teacher_folder / "teacher.safetensors", fresh_network(recipe))
        return made

    return make


def earlier(run: Run) -> Path:
    """The file of a student that was trained before, with random weights."""
    network = new_student(run)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    run.folder.path.mkdir(parents=True, exist_ok=True)
    save_student(run.folder.student, network, run)
    return run.folder.student


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("form", [Full, Lora])
def test_a_student_starts_from_an_earlier_one_and_goes_on_without_it(form: Any, run: Callable[..., Run]) -> None:
    file = earlier(run())
    weights = {name: tensor.clone() for name, tensor in load_file(file).items()}
    mine = run(student=form(init=str(file)))
    require_start(mine)
    keep_start(mine)
    folder = mine.folder.path
    pinned = to_data(dataclasses.replace(mine.recipe, student=mine.recipe.student.pinned()))  # as in config.json
    again = Run(from_data(Recipe, pinned), mine.workspace)
    file.unlink()
    require_start(again)
    keep_start(again)
    assert again.folder.path == folder
    assert same(dict(load_start(again, load_teacher(again)).state_dict()), weights)
    start = new_student(again)
    save_student(again.folder.student, start, again)
    for loaded in (load_student(again, again.folder.student), load_anywhere(again.folder.path, torch.device("cpu"))[0]):
        found = dict(loaded.state_dict())
        assert found.keys() == weights.keys()
        assert all(torch.allclose(found[name], weights[name], atol=1e-6) for name in weights)


def test_the_content_counts_and_not_the_path(run: Callable[..., Run], tmp_path: Path) -> None:
    file = earlier(run())
    moved = tmp_path / "elsewhere.safetensors"
    shutil.copy(file, moved)
    plain, one, other = (run(student=Full(init=init)).recipe for init in ("", str(file), str(moved)))
    folder = run(student=Full(init=str(file.parent))).recipe
    assert one.distill_signature() == other.distill_signature() == folder.distill_signature()
    assert one.distill_signature() != plain.distill_signature()
    assert one.teacher_signature() == plain.teacher_signature()
    pinned = dataclasses.replace(one, student=one.student.pinned())
    assert pinned.distill_signature() == one.distill_signature()
    moved.write_bytes(earlier(run()).read_bytes())
    changed = dataclasses.replace(other, student=dataclasses.replace(pinned.student, init=str(moved)))
    with pytest.raises(UserError, match=r"student\.init: .*elsewhere.* has changed since the run began"):
        require_start(run(student=changed.student))


def test_a_lora_is_merged_into_the_teachers_weights(run: Callable[..., Run], tmp_path: Path) -> None:
    plain = run()
    network = load_teacher(plain)
    layer = next(name for name in adaptable(network) if network.get_submodule(name).weight.ndim == 2)
    adapted = add_adapter(load_teacher(plain), rank=2, alpha=2, layers=[layer])
    state = {name: torch.randn_like(tensor) for name, tensor in adapter_state(adapted).items()}
    file = tmp_path / "lora.safetensors"
    save_file({f"unet.{name}": tensor for name, tensor in state.items()}, file)
    mine = run(student=Full(init=str(file)))
    require_start(mine)
    keep_start(mine)
    expected = network.state_dict()
    expected[f"{layer}.weight"] += state[f"{layer}.lora_B.weight"] @ state[f"{layer}.lora_A.weight"]
    found = load_start(mine, load_teacher(mine)).state_dict()
    assert all(torch.allclose(found[name], expected[name], atol=1e-5) for name in expected)


def refused(run: Run) -> str:
    with pytest.raises(UserError) as caught:
        require_start(run)
    with pytest.raises(UserError):
        keep_start(run)
    assert not run.folder.init.exists()
    message = str(caught.value)
    assert message.startswith("student.init: ") and "\n" not in message
    return message


def test_another_architecture_is_named_by_its_first_tensors(run: Callable[..., Run]) -> None:
    file = earlier(run(network=dataclasses.replace(NETWORK, widths=(8, 16))))
    assert "has another architecture than the teacher: " in (found := refused(run(student=Full(init=str(file)))))
    assert "the teacher's [" in found and "more; a student starts from" in found


def test_another_prediction_is_refused_although_the_weights_fit(run: Callable[..., Run]) -> None:
    file = earlier(run(network=dataclasses.replace(NETWORK, precondition="ddpm")))
    assert "precondition ddpm (the teacher's edm)" in refused(run(student=Full(init=str(file))))


def test_missing_files_pickles_and_foreign_loras_are_refused(run: Callable[..., Run], tmp_path: Path) -> None:
    def of(path: Path) -> str:
        return refused(run(student=Full(init=str(path))))

    assert "does not exist; a run that began with it goes on with --student.digest" in of(tmp_path / "gone.safetensors")
    torch.save({}, tmp_path / "student.pt")
    assert "may run code when it is read (a pickle)" in of(tmp_path / "student.pt")
    save_file({"lora_unet_mid.lora_down.weight": torch.zeros(2, 2)}, tmp_path / "kohya.safetensors")
    assert "first tensor without a layer of the teacher is 'lora_unet_mid.lora_down.weight'" in of(
        tmp_path / "kohya.safetensors"
    )
    (tmp_path / "empty").mkdir()
    assert "is taken for a model of diffusers, and the teacher is a 'cunet'" in of(tmp_path / "empty")


def test_a_turbo_model_of_the_teachers_family_is_a_start_and_others_are_not(smoke: Recipe, tmp_path: Path) -> None:
    folders = {name: write_model(tmp_path / name, "class_unet", seed) for seed, name in enumerate(("teacher", "turbo"))}
    data = Prompts(channels=LATENTS.channels, size=LATENTS.height, num_classes=LATENTS.num_classes)
    plain = dataclasses.replace(smoke, dataset=data, network=Diffusers(source=str(folders["teacher"])))
    teacher, turbo = (
        Diffusers(source=str(folder)).load(image=LATENTS).state_dict()
        for folder in (folders["teacher"], folders["turbo"])
    )
    assert not same(dict(teacher), dict(turbo))

    def of(folder: Path) -> Recipe:
        return dataclasses.replace(plain, student=Full(init=str(folder)))

    def start(folder: Path) -> dict[str, torch.Tensor]:
        network = plain.network.load(image=LATENTS)
        return dict(read_start(of(folder), network, tmp_path).state_dict())

    assert same(start(folders["turbo"]), dict(turbo))
    require_start(Run(of(folders["turbo"]), Workspace(tmp_path, tmp_path, torch.device("cpu"))))
    scheduler = folders["turbo"] / "scheduler" / "scheduler_config.json"
    told = json.loads(scheduler.read_text())
    scheduler.write_text(json.dumps({**told, "prediction_type": "epsilon"}))
    with pytest.raises(UserError, match="predicts epsilon, the teacher sample: its weights mean something else"):
        start(folders["turbo"])
    scheduler.write_text(json.dumps({**told, "beta_schedule": "linear"}))
    with pytest.raises(UserError, match="has another noise schedule than the teacher"):
        start(folders["turbo"])
