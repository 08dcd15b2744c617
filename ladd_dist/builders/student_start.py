"""Where a student starts if its recipe names a start: read, checked against the teacher, and kept with the run.

The run keeps the start as `init.safetensors`, so that it goes on, and can be opened, when the start itself is gone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ladd_dist.builders.networks import frozen, save_weights
from ladd_dist.builders.student_file import file_of, load_student, require_same_space
from ladd_dist.builders.teacher import load_start, load_teacher
from ladd_dist.core.door import decode
from ladd_dist.core.errors import UserError
from ladd_dist.core.serialize import RecipeError, to_data
from ladd_dist.core.tensor_file import TensorFile, read_tensors, require_finite
from ladd_dist.core.types import Denoiser
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.networks.diffusers.denoiser import DiffusersDenoiser
from ladd_dist.recipe import Recipe
from ladd_dist.students.adapter import add_adapter, layers_of, merge_adapter, set_adapter
from ladd_dist.students.start import STUDENT, start_digest
from ladd_dist.workspace.run import Run

FIELD = "student.init"
LORA = "pytorch_lora_weights.safetensors"
_ADAPTER = "lora_adapter_metadata"
_WRITE_AGAIN = "write it again with diffusers' save_lora_weights"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_PREFIXES = ("unet.", "transformer.", "base_model.model.", "diffusion_model.")


def keep_start(run: Run) -> None:
    """Keep the start that the recipe names in the run's folder, unless it is there; a collective call.

    Raises:
        UserError: the start is missing, damaged, or of another network than the teacher.
    """
    if not run.recipe.student.init:
        return
    if run.ranks.is_first and not run.folder.init.exists():
        _require_unchanged(run.recipe)
        save_weights(run.folder.init, read_start(run.recipe, load_teacher(run), run.folder.path))
    run.ranks.barrier()


def student_at_start(run: Run) -> Denoiser:
    """The student before training as a plain network, frozen, in eval mode: from what the run kept, or the start.

    Raises:
        UserError: the start is missing, damaged, or of another network than the teacher.
    """
    teacher = load_teacher(run)
    if run.folder.init.exists() or not run.recipe.student.init:
        return load_start(run, teacher)
    _require_unchanged(run.recipe)
    return frozen(read_start(run.recipe, teacher, run.folder.path), run)


def require_start(run: Run) -> None:
    """Check the start that the recipe names before anything is trained; a run that kept it needs it no more.

    Raises:
        UserError: the start is missing, damaged, or of another network than the teacher.
    """
    recipe = run.recipe
    if not recipe.student.init or run.folder.init.exists() or run.folder.student.exists():
        return
    _require_unchanged(recipe)
    with torch.device("meta"):
        planned = recipe.network.build(image=recipe.latent())
    read_start(recipe, planned, run.folder.path)


def _require_unchanged(recipe: Recipe) -> None:
    known, found = recipe.student.digest, start_digest(recipe.student.init)
    if known and found and known != found:
        raise RecipeError(f"{FIELD}: {recipe.student.init} has changed since the run began; it started from {known}")


def read_start(recipe: Recipe, teacher: Denoiser, run: Path) -> Denoiser:
    """The network of a start, of the teacher's architecture and prediction.

    Args:
        teacher: the teacher, into which a LoRA is merged; on the device "meta" the weights of one are only checked.
        run: the run's folder, for errors.

    Raises:
        UserError: the start is missing, holds no such network, or does not fit the teacher.
    """
    init = recipe.student.init
    path = Path(init).expanduser()
    if path.suffix in _PICKLES:
        raise UserError(
            f"{FIELD}: {init} may run code when it is read (a pickle); convert it to safetensors where you trust it"
        )
    if path.is_file() or (path / STUDENT).is_file():
        return _of_file(recipe, teacher, path, run)
    if (path / LORA).is_file():
        return _with_lora(teacher, path / LORA)
    if path.is_dir() or (not path.exists() and init.count("/") == 1 and not init.startswith((".", "~", "/"))):
        return _of_diffusers(recipe, teacher)
    remedy = "; a run that began with it goes on with --student.digest, the hash in the run's config.json"
    raise UserError(f"{FIELD}: {init} does not exist{remedy if not recipe.student.digest else ''}")


def _of_file(recipe: Recipe, teacher: Denoiser, path: Path, run: Path) -> Denoiser:
    file = file_of(path)
    content = read_tensors(file, problem="holds no weights that can be read", remedy="give another start")
    if "ladd_dist" not in content.metadata:
        return _with_lora(teacher, file, content)
    network, card = load_student(path, torch.device("cpu"))
    if network.image.shape != recipe.latent().shape:
        require_same_space(file, network, card, run, recipe)
    network = _with_classes(network, recipe, teacher, file)
    require_same_weights(init_of(file), network.state_dict(), teacher.state_dict())
    _require_same_prediction(init_of(file), network, teacher)
    if not recipe.network.pretrained:
        _require_same_network(init_of(file), dict(card["network"]), recipe)
    require_same_space(file, network, card, run, recipe)
    return network


def _with_classes(network: Denoiser, recipe: Recipe, teacher: Denoiser, file: Path) -> Denoiser:
    """The network with the classes that the recipe's network takes of a checkpoint (`Network.chosen`)."""
    own = network.state_dict()
    weights = recipe.network.chosen(own, str(file))
    if all(weights[name] is own[name] for name in own):
        return network
    require_same_weights(init_of(file), weights, teacher.state_dict())
    chosen = recipe.network.build(image=recipe.latent())
    chosen.load_state_dict(weights)
    return chosen


def _of_diffusers(recipe: Recipe, teacher: Denoiser) -> Denoiser:
    init = recipe.student.init
    if not isinstance(recipe.network, Diffusers):
        raise RecipeError(
            f"{FIELD}: {init} is taken for a model of diffusers, and the teacher is a {recipe.network.name!r}; give an "
            "earlier student of such a teacher: a run's folder or its student.safetensors"
        )
    described = dataclasses.replace(recipe.network, source=init, subfolder="", revision="", config="")
    if next(teacher.parameters()).is_meta:
        with torch.device("meta"):
            network = described.build(image=recipe.latent())
    else:
        network = described.load(image=recipe.latent())
    require_same_weights(init_of(init), network.state_dict(), teacher.state_dict())
    _require_same_prediction(init_of(init), network, teacher)
    return network


def _with_lora(teacher: Denoiser, path: Path, content: TensorFile | None = None) -> Denoiser:
    """The teacher with a LoRA of diffusers or PEFT merged into its weights."""
    found = content or read_tensors(path, problem="holds no weights that can be read", remedy="give another start")
    require_finite(found.tensors, path)
    layers = {f"{name}.weight" for name, layer in teacher.named_modules() if hasattr(layer, "weight")}
    state = {_own_name(name, layers): tensor for name, tensor in found.tensors.items()}
    names = layers_of(state)
    foreign = sorted(name for name in state if _layer_of(name) not in layers)
    if foreign or not names:
        what = f"its first tensor without a layer of the teacher is {foreign[0]!r}" if foreign else "it is empty"
        raise UserError(
            f"{FIELD}: {path} is no LoRA of this teacher, and no student of ladd_dist: {what}; a LoRA has "
            "LAYER.lora_A.weight and LAYER.lora_B.weight, as diffusers' save_lora_weights writes them"
        )
    ranks = {state[f"{name}.lora_A.weight"].shape[:1].numel() for name in names}
    if min(ranks) < 1 or any(not state[f"{name}.lora_A.weight"].ndim for name in names):
        raise UserError(f"{FIELD}: {path} has an adapter without a rank; {_WRITE_AGAIN}")
    if len(ranks) > 1:
        raise UserError(f"{FIELD}: {path} has adapters of several ranks ({min(ranks)} to {max(ranks)}); one is read")
    rank = ranks.pop()
    with torch.random.fork_rng(devices=[]):  # new adapters are random until the next line
        network = add_adapter(teacher, rank=rank, alpha=_alpha(found.metadata, path, rank), layers=names)
    try:
        set_adapter(network, state)
    except UserError as error:
        raise UserError(f"{FIELD}: {path}: {error}") from error
    return merge_adapter(network)


def _own_name(name: str, layers: set[str]) -> str:
    """The teacher's own name of a tensor, which files begin with the part of their pipeline."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    name = name.replace(".default.", ".")
    return f"model.{name}" if _layer_of(f"model.{name}") in layers else name


def _layer_of(name: str) -> str:
    for half in (".lora_A.weight", ".lora_B.weight"):
        if name.endswith(half):
            return f"{name.removesuffix(half)}.weight"
    return ""


def _alpha(metadata: Mapping[str, str], path: Path, rank: int) -> float:
    """The LoRA's alpha as the file's metadata say it (`lora_adapter_metadata` of diffusers); the rank otherwise.

    Raises:
        UserError: the metadata are damaged, or say what one alpha cannot.
    """
    told = decode(metadata.get(_ADAPTER, "{}").encode(), dict[str, Any], f"{FIELD}: {path}: {_ADAPTER}", _WRITE_AGAIN)
    found = {name: value for name, value in told.items() if name.rpartition(".")[2] == "lora_alpha"}
    for name, value in told.items():
        if value and name.rpartition(".")[2] in ("alpha_pattern", "use_rslora"):
            raise UserError(
                f"{FIELD}: {path}: its metadata have {name}; a LoRA with one alpha, divided by its rank, is read"
            )
    if any(type(value) not in (int, float) or not 0 < value < math.inf for value in found.values()):
        raise UserError(f"{FIELD}: {path}: lora_alpha in its metadata must be a positive number; {_WRITE_AGAIN}")
    if len(set(found.values())) > 1:
        raise UserError(f"{FIELD}: {path} has several alphas ({', '.join(sorted(found))[:200]}); one is read")
    return float(next(iter(found.values()), rank))


def init_of(where: Path | str) -> str:
    """How a message begins."""
    return f"{FIELD}: {where}"


def require_same_weights(who: str, own: Mapping[str, Tensor], teachers: Mapping[str, Tensor]) -> None:
    """Refuse weights of other names or shapes than the teacher's.

    Raises:
        UserError: the message names the first that differ.
    """
    differing = []
    for name in [*teachers, *(name for name in own if name not in teachers)]:
        here, there = (list(part[name].shape) if name in part else None for part in (own, teachers))
        if here != there:
            differing.append(f"{name} ({here or 'missing'}, the teacher's {there or 'missing'})")
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise UserError(
            f"{who} has another architecture than the teacher: {', '.join(differing[:3])}{more}; a student starts from "
            "weights of its teacher's architecture"
        )


def _require_same_prediction(who: str, own: Denoiser, teacher: Denoiser) -> None:
    """Refuse a model of diffusers that predicts something else, or whose noise schedule is another."""
    if not (isinstance(own, DiffusersDenoiser) and isinstance(teacher, DiffusersDenoiser)):
        return
    mine, theirs = own.prediction, teacher.prediction
    if mine.kind != theirs.kind:
        raise UserError(f"{who} predicts {mine.kind}, the teacher {theirs.kind}: its weights mean something else")
    tables = (mine.log_sigmas, theirs.log_sigmas)
    same = all(table is None for table in tables) or (
        tables[0] is not None
        and tables[1] is not None
        and tables[0].shape == tables[1].shape
        and torch.allclose(tables[0].cpu(), tables[1].cpu(), atol=1e-4)
    )
    if not same or mine.num_timesteps != theirs.num_timesteps:
        raise UserError(
            f"{who} has another noise schedule than the teacher (levels {mine.sigma_min():.4g} to "
            f"{mine.sigma_max():.4g} against {theirs.sigma_min():.4g} to {theirs.sigma_max():.4g})"
        )


def _require_same_network(who: str, own: Mapping[str, object], recipe: Recipe) -> None:
    """Refuse settings of a network that shapes do not show, such as what it predicts."""
    teachers = to_data(recipe.network)
    names = [name for name in teachers if own.get(name) != teachers[name]]
    if names:
        listed = ", ".join(f"{name} {own.get(name)} (the teacher's {teachers[name]})" for name in names[:3])
        raise UserError(f"{who} is another network than the teacher, although its weights fit: {listed}")
