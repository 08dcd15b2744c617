"""Stage `evaluate`: measure student and teacher on the same held-out noise, against real images and stored samples."""

from __future__ import annotations

from ladd_dist.builders.networks import share_table
from ladd_dist.builders.sampling import SampleFn, sample_student
from ladd_dist.builders.student import load_student
from ladd_dist.builders.teacher import load_start, load_teacher
from ladd_dist.core.errors import MachineError, UserError
from ladd_dist.core.run_forms import ClassFigures, Evaluation, features_of, read_classes, read_evaluation
from ladd_dist.core.rundir import RunDir, write_json
from ladd_dist.core.types import Denoiser
from ladd_dist.engine.loop import StopFlag
from ladd_dist.evaluation.assess import NUM_SHOWN, assess
from ladd_dist.evaluation.draw import teacher_steps
from ladd_dist.evaluation.noise_seeds import means_of
from ladd_dist.evaluation.tuned import shown_conditions, tunes
from ladd_dist.recipe import Recipe
from ladd_dist.recipe.fitting import fitting_metrics
from ladd_dist.reports.collapse import as_number, onset
from ladd_dist.reports.grids import write_grid
from ladd_dist.reports.tunings import OLD_ROW
from ladd_dist.stages.old_samples import make_old_samples
from ladd_dist.stages.shards import make_shards
from ladd_dist.trackers.opening import tracker_alone
from ladd_dist.workspace.config import tracked_config
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import is_done, mark_done


def is_evaluated(run: Run) -> bool:
    """Whether `eval.json` holds this recipe's figures. A damaged one does not: they are made again."""
    folder = run.folder
    marked = is_done(folder.path / "evaluate.done.json", run.recipe.evaluate_signature())
    return marked and folder.eval.exists() and _are_readable(folder)


def _are_readable(folder: RunDir) -> bool:
    try:
        read_evaluation(folder.eval)
        read_classes(folder.eval_classes)
    except MachineError:  # says nothing about what is in the file
        raise
    except UserError:
        return False
    return True


def require_metrics(run: Run) -> None:
    """Refuse to train for hours if a metric could not be computed afterwards; a measured run passes.

    Raises:
        ValueError: a metric lacks a file or a package.
    """
    if not is_evaluated(run):
        for metric in fitting_metrics(run.recipe):
            metric.require(run.device)


def evaluate(run: Run) -> Evaluation:
    """Measure the run's student and its teacher; returns the contents of eval.json.

    Each rank samples and extracts features of its share. Every rank computes all figures, and rank 0 writes them.
    """
    recipe = run.recipe
    if run.ranks.from_rank0(lambda: is_evaluated(run)):
        return read_evaluation(run.folder.eval)
    if recipe.shards.samples == "dataset":  # the figures compare with the teacher's samples all the same
        make_shards(Run(recipe.with_teacher_samples(), run.workspace))
    make_old_samples(run)  # if they are gone: those of a tuning compare with them
    share_table(run)
    student = load_student(run, run.folder.student)
    # The student before training: the teacher without guidance, or another start, sampled by the student's rule.
    teacher = load_teacher(run)
    untrained = load_start(run, load_teacher(run)) if recipe.student.init else teacher  # it replaces weights
    samplers = {f"student@{steps}": _sampler(recipe, student, steps) for steps in recipe.evaluate.steps}
    samplers[f"untrained@{recipe.student_steps}"] = _sampler(recipe, untrained, recipe.student_steps)
    with StopFlag().listen() as stop:
        figures, measured, samples, networks = assess(run, teacher, samplers, stop)
    if run.ranks.is_first:
        ends = (f"untrained@{recipe.student_steps}", f"student@{recipe.student_steps}")
        order = [
            f"teacher@{teacher_steps(recipe)}",
            *samplers,
            *(f"teacher@4:{name}" for name in recipe.teacher_levels()),
            *(old for name in ends if (old := f"{name}{OLD_ROW}") in samples),
        ]
        rows = [(name, samples[name][:NUM_SHOWN]) for name in order]
        write_grid(run.folder.samples / "final.png", rows)
        told: ClassFigures = {
            "left_out": measured.left_out, "unfit": dict(measured.unfit), "entries": measured.classes,
        }  # fmt: skip
        told |= {"networks": networks} if networks else {}
        told |= {"shown": shown_conditions(run, NUM_SHOWN)} if tunes(recipe) else {}
        write_json(run.folder.eval_classes, told)
        write_json(run.folder.eval, figures)
        tell_tracker(recipe, run.folder, figures)
        mark_done(run.folder.path / "evaluate.done.json", recipe.evaluate_signature())
    run.ranks.barrier()
    stop.check()  # a signal while the last figures were computed
    return figures


def tell_tracker(recipe: Recipe, run: RunDir, figures: Evaluation) -> None:
    """Send the contents of eval.json and the last grid to the recipe's tracker."""
    means = means_of(figures)
    flat = {f"eval/{name}/{key}": value for name, measured in means.items() for key, value in measured.items()}
    if (collapsed := as_number(onset(run.path))) is not None:
        flat["collapse/step"] = collapsed  # computed here, because trackers have no dumps
    config = tracked_config(recipe, run)
    with tracker_alone(recipe.tracker, folder=run.path, config=config, resume_step=recipe.train.steps) as log:
        log.summary(flat, {"samples/final": run.samples / "final.png"})
        log.features(features_of(figures))


def _sampler(recipe: Recipe, student: Denoiser, steps: int) -> SampleFn:
    return lambda noise, cond, source: sample_student(recipe, student, noise, cond, steps, source)
