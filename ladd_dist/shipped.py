"""Every plug-in of the package, imported for its registration: a name in config.json must find its class."""

import ladd_dist.codecs.pixels
import ladd_dist.critics.pixels
import ladd_dist.critics.teacher
import ladd_dist.datasets.digits
import ladd_dist.datasets.mnist
import ladd_dist.guards.collapse
import ladd_dist.levels.named
import ladd_dist.losses.adversarial
import ladd_dist.losses.distance
import ladd_dist.metrics.shipped
import ladd_dist.networks.cunet
import ladd_dist.parallel.ddp
import ladd_dist.parallel.fsdp
import ladd_dist.parallel.single
import ladd_dist.parallel.zero
import ladd_dist.regularisers.penalties
import ladd_dist.rollouts.policies
import ladd_dist.samplers.karras
import ladd_dist.sigmas.laws
import ladd_dist.starts.couplings
import ladd_dist.students.full
import ladd_dist.students.lora
import ladd_dist.targets.pulls
import ladd_dist.trackers.jsonl
import ladd_dist.trackers.tensorboard
import ladd_dist.trackers.wandb
