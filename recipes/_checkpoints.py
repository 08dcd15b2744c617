"""Base of the recipes for real checkpoints: text prompts, latents of unit variance, eight accelerators of 80 GB.

These recipes have no scales, because nothing smaller can stand for their teacher. `ladd launch RECIPE --dry-run` and
`ladd plan RECIPE --gpus 8` need neither its weights nor internet access: its configuration is in `configs/`. They ask
for 5,000 prompts of many kinds; `ladd prompts` writes more, and `--dataset.file prompts.txt` takes your own.

None of these recipes has been run at this size here. Their numbers are those of the papers, in our units: the heads
compare at levels of LADD's logit-normal with m = 1, s = 1, which is ln sigma ~ N(1, 1) in latents of unit variance, and
the student's levels are the checkpoint's own at the times 1, 3/4, 1/2 and 1/4.
"""

from pathlib import Path

from ladd_dist.codecs.vae import Vae
from ladd_dist.datasets.prompts import Prompts
from ladd_dist.guards.collapse import Collapse
from ladd_dist.levels.named import Good
from ladd_dist.losses.adversarial import Hinge
from ladd_dist.losses.distance import SmoothL1
from ladd_dist.metrics.diversity import Diversity
from ladd_dist.metrics.matched import Matched
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.parallel.compute import Compute
from ladd_dist.parallel.ddp import Ddp
from ladd_dist.recipe import DistillStage, Ema, EvaluateStage, Recipe, ShardStage, TeacherStage
from ladd_dist.regularisers.penalties import NoRegulariser
from ladd_dist.samplers.karras import Euler
from ladd_dist.sigmas.laws import FixedSet, LogNormal, Phase
from ladd_dist.starts.couplings import Stored
from ladd_dist.zoo.plugins.heads.spectral_norm import SpectralNorm
from ladd_dist.zoo.plugins.schedules.constant import Constant
from ladd_dist.zoo.plugins.schedules.linear_warmup import LinearWarmup
from ladd_dist.zoo.plugins.taps.downs_middle import DownsMiddle

HERE = Path(__file__).parent
PROMPTS = str(HERE / "prompts.txt")
SD15_CONFIG, PIXART_CONFIG, SD3_CONFIG, KANDINSKY3_CONFIG, FLUX2_CONFIG, QWEN_IMAGE_CONFIG, Z_IMAGE_CONFIG = (
    str(HERE / "configs" / name) for name in ("sd15", "pixart", "sd3", "kandinsky3", "flux2", "qwen_image", "z_image")
)
LOW_FIRST, THEN_HIGH = Phase(0, (0.0, 0.0, 0.5, 0.5)), Phase(500, (0.7, 0.1, 0.1, 0.1))
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"

CHECKPOINT = Recipe(
    dataset=Prompts(file=PROMPTS, size=512),
    network=Diffusers(source=SD15, config=SD15_CONFIG),
    codec=Vae(source=SD15, config=SD15_CONFIG),
    teacher=TeacherStage(steps=1, batch_size=8, lr=0.0, sigma=LogNormal()),  # not read: the teacher is trained
    shards=ShardStage(
        num_samples=100_000, sampler=Euler(steps=50, sigma_min=0.03, sigma_max=14.6), guidance=7.5, dtype="float16",
        batch_size=32,
    ),
    levels=Good(four=(14.6, 4.08, 1.61, 0.69), two=(14.6, 1.61), one=(14.6,)),
    start=Stored(),
    student_sigma=FixedSet(phases=(LOW_FIRST, THEN_HIGH)),
    renoise_sigma=LogNormal(mean=1.0, std=1.0),
    taps=DownsMiddle(),
    head=SpectralNorm(width=128, conditioned=True),
    adversarial=Hinge(),
    distance=SmoothL1(beta=0.1),
    regulariser=NoRegulariser(),
    adv_weight=LinearWarmup(value=1.0, steps=500),
    distill_weight=Constant(value=0.1),
    train=DistillStage(
        steps=10_000, batch_size=64, lr_student=1e-5, lr_heads=1e-4, betas_student=(0.9, 0.99), betas_heads=(0.5, 0.99),
        ema=Ema(half_life=64_000, ramp=0.05), compute=Compute(precision="bf16", checkpoint=("student", "teacher")),
        log_every=20, dump_every=500, checkpoint_every=500,
    ),
    evaluate=EvaluateStage(num_samples=1_000, num_references=1_000, metrics=(Matched(), Diversity()), batch_size=32),
    guard=Collapse(every=100),
    parallel=Ddp(),
)  # fmt: skip
