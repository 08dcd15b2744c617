"""`python -m ladd_dist.export RUN`: the student as one file that says how to build and sample it, or for diffusers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from ladd_dist.cli.arguments import read
from ladd_dist.cli.errors import run_guarded
from ladd_dist.core.consent import Consent
from ladd_dist.core.ranges import CountOrZero
from ladd_dist.exporting.student import finished_student, student_at, write_student

if TYPE_CHECKING:
    from ladd_dist.core.rundir import RunDir

PROG = "python -m ladd_dist.export"
FORMATS = ("safetensors", "diffusers", "lora")


@dataclass(frozen=True)
class Options(Consent):
    """Write a run's student (averaged weights): as one file with its card, and the card as readable JSON beside it.

    Or as a folder: `diffusers` for `DiffusionPipeline.from_pretrained`, `lora` for `pipe.load_lora_weights`.
    """

    run: tyro.conf.Positional[Path]
    """A run's folder."""
    to: str = FORMATS[0]
    """The format: safetensors, diffusers or lora."""
    out: Path | None = None
    """The file to write; NAME-SIGNATURE.safetensors in this folder unless given. The JSON lies beside it. Of the
    formats for diffusers the folder, NAME-SIGNATURE-diffusers or NAME-SIGNATURE-lora."""
    step: CountOrZero | None = None
    """Take the averaged weights of this checkpoint. Unless given: the finished student, else the newest checkpoint."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(read(Options, arguments, prog=PROG)))


def _main(options: Options) -> int:
    from ladd_dist.core.rundir import RunDir
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.exporting.lora import write_lora
    from ladd_dist.exporting.pipeline import write_pipeline
    from ladd_dist.workspace.config import read_config

    if options.to not in FORMATS:
        raise RecipeError(f"--to {options.to}: no such format; formats: {', '.join(FORMATS)}")
    run = RunDir(options.run)
    out = _target(options, run)
    config = read_config(run)  # alone: a finished student needs no recipe, nor the version that made it
    options.load()
    last = options.step in (None, config.recipe["train"]["steps"])
    student = finished_student(run, config) if last and run.student.is_file() else None
    if student is None or options.step not in (None, student.card.step):  # an early stop keeps an earlier step
        missing = options.step is None and not run.student.exists()
        student = student_at(run.path, options.step)
        if missing:
            print(
                f"note: {run.student} does not exist: these are the weights of step {student.card.step}",
                file=sys.stderr,
            )
    steps = config.recipe["student_steps"]
    if options.to == "lora":
        write_lora(out, student.network, student.card, student.kept, steps)
    elif options.to == "diffusers":
        write_pipeline(out, student.network, student.card.merged(), steps)
    else:
        write_student(out, student.network, student.card.merged(), student.codec)
    print(out)
    return 0


def _target(options: Options, run: RunDir) -> Path:
    """What is to be written.

    Raises:
        UserError: it cannot be written there.
    """
    from ladd_dist.core.names import require_name
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.core.targets import is_stream, output_file, output_folder
    from ladd_dist.exporting.pipeline import require_free

    name = run.path.resolve().name
    if options.to != "safetensors":
        out = output_folder(options.out or Path(f"{name}-{options.to}"), whole=True)
        require_name(out.name, "--out")  # its README has the name in lines of code to copy
        require_free(out, run.path)
        return out
    out = output_file(options.out or Path(f"{name}.safetensors"))
    for path in (out, output_file(out.with_suffix(".json"))):
        if is_stream(path):  # the card has the checksum of the file, which is read back
            raise RecipeError(f"--out {path}: is a pipe or a device, and a student is kept in files; name one")
    if out.suffix != ".safetensors":
        raise RecipeError(
            f"--out {out}: the file's name must end in .safetensors (the card goes to NAME.json beside it)"
        )
    if out.resolve().parent == run.path.resolve():
        raise RecipeError(f"--out {out}: lies in the run's own folder; choose another")
    return out


if __name__ == "__main__":
    sys.exit(main())
