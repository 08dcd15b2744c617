"""Bugs that broke other projects, each put back into a copy of the package, and what must see it.

`docs/doctor.md` has the same table; `test_doctor_mutations.py` holds them together.
"""

from __future__ import annotations

from mutating import Mutation
from mutating import one as _one

MUTATIONS: dict[str, Mutation] = {
    "sampler_ends_early": Mutation(
        "the sampler's last level is not 0",
        _one("samplers/karras.py", "zip(levels, (*levels[1:], 0.0), strict=True)", "zip(levels[:-1], levels[1:])"),
        check="last-level",
    ),
    "few_steps_end_early": Mutation(
        "the few-step sampler returns its last noisy state",
        _one(
            "core/noise.py",
            "return denoise(x, torch.full((len(x),), levels[-1], device=x.device, dtype=x.dtype), cond)",
            "return x",
        ),
        check="last-level",
    ),
    "no_guidance": Mutation(
        "the teacher's references are made without guidance",
        _one(
            "builders/teacher.py",
            "return guided(denoiser(teacher), recipe.shards.guidance, recipe.latent().num_classes, teacher.rescaled)",
            "return denoiser(teacher)",
        ),
        check="guidance",
    ),
    "pure_noise": Mutation(
        "the student is fed pure noise whatever its level",
        _one(
            "starts/couplings.py",
            "return batch.x0 + sigma.view(-1, 1, 1, 1) * batch.noise",
            "return sigma.view(-1, 1, 1, 1) * batch.noise",
        ),
        check="student-input",
    ),
    "velocity_as_x0": Mutation(
        "a velocity is used as x0",
        _one("networks/cunet.py", "NetOutput(_bchw(scale.skip, x) * x + _bchw(scale.out, x) * raw,", "NetOutput(raw,"),
        check="teacher-x0",
    ),
    "real_is_noise": Mutation(
        "what stands for real is noise",
        _one(
            "engine/heads_update.py",
            "critique(self.critic, part.batch.x0, part)",
            "critique(self.critic, part.batch.noise, part)",
        ),
        check="compared",
    ),
    "own_noise_for_real": Mutation(
        "real and fake are compared at different noise",
        _one(
            "engine/heads_update.py",
            "critique(self.critic, part.batch.x0, part)",
            "critique(self.critic, part.batch.x0, self.redrawn(part, step, 9))",
        ),
        check="real-real",
    ),
    "micro_batches_summed": Mutation(
        "micro-batches are summed, not averaged",
        _one("parallel/base.py", "loss_of(micro) / self.accumulate", "loss_of(micro)"),
        check="accumulation",
    ),
    "only_divides_the_loss": Mutation(
        "accumulation only divides the loss: the last micro-batch alone counts",
        _one(
            "parallel/base.py",
            "            with self.reduce_in(",
            "            self.optimizer.zero_grad(set_to_none=True)\n            with self.reduce_in(",
        ),
        check="accumulation",
    ),
    "hinge_on_the_sum": Mutation(
        "the game's loss is taken of the sum of heads",
        _one(
            "core/gan.py",
            "torch.stack([loss(*(mapping[tap] for mapping in logits)) for tap in taps]).mean()",
            "loss(*(torch.stack([mapping[tap].mean(1) for tap in taps]).sum(0)[:, None] for mapping in logits))",
        ),
        check="heads-loss",
    ),
    "gradients_in_the_heads": Mutation(
        "the student's backward pass leaves gradients in the heads",
        _one("parallel/base.py", "            parameter.requires_grad_(False)\n", "            pass\n"),
        check="gradients",
    ),
    "heads_not_frozen": Mutation(
        "the student's turn computes the heads' gradients",
        _one("engine/ladd_step.py", "with self.heads.frozen():", "if True:"),
        check="gradients",
    ),
    "gradients_in_the_student": Mutation(
        "the heads' backward pass reaches the student",
        _one("engine/discriminator.py", "out.features[tap].detach() for out", "out.features[tap] for out"),
        check="gradients",
    ),
    "gradients_stay": Mutation(
        "gradients of one update are there in the next",
        _one(
            "parallel/base.py",
            "        self.optimizer.zero_grad(set_to_none=True)\n        self.power_iteration.res",
            "        self.power_iteration.res",
        ),
        check="gradients",
    ),
    "teacher_requires_grad": Mutation(
        "the teacher's weights require a gradient",
        (
            *_one("engine/discriminator.py", "network.eval().requires_grad_(False)", "network.eval()"),
            *_one("parallel/single.py", "module.eval().requires_grad_(False)", "module.eval()"),
            *_one("builders/networks.py", "run.device).eval().requires_grad_(False)", "run.device).eval()"),
        ),
        check="teacher-frozen",
    ),
    "teacher_detached": Mutation(
        "no gradient passes through the teacher",
        _one("engine/discriminator.py", "self.network(shown, tau,", "self.network(shown.detach(), tau,"),
        check="teacher-differentiable",
    ),
    "spectral_norm_moves": Mutation(
        "spectral norm iterates in the frozen heads",
        _one("parallel/base.py", "        self.module.eval()\n", ""),
        check="frozen-heads",
    ),
    "accuracy_of_one_micro_batch": Mutation(
        "accuracy is that of one micro-batch",
        _one(
            "engine/step_metrics.py",
            "self.sums[name] + value if name in self.sums else value\n            self.counts[name] = "
            "self.counts.get(name, 0) + 1",
            "value\n            self.counts[name] = 1",
        ),
        check="statistics",
    ),
    "accuracy_of_one_rank": Mutation(
        "accuracy is that of one rank",
        _one("parallel/ranks.py", "control)\n        return total\n", "control)\n        return values\n"),
        test="tests/distributed/test_launch_ranks.py::test_two_ranks_meet_and_hear_the_same",
    ),
    "uncorrected_comparison": Mutation(
        "a sweep's gains are within the noise of seeds",
        _one("comparison/statistics.py", "level = alpha / (len(differences) - rank)", "level = alpha"),
        test="tests/unit/test_compare_statistics.py",
    ),
    "average_moves_twice": Mutation(
        "the average moves on the heads' turn too",
        _one(
            "stages/distill.py",
            "        figures = train_step(",
            "        self.average.update(step + 1)\n        figures = train_step(",
        ),
        check="average",
    ),
    "average_ignored": Mutation(
        "the average is ignored at evaluation",
        _one(
            "builders/teacher.py",
            "weights = whole(average.weights, run.ranks)",
            'weights = whole(trainable.local("weight"), run.ranks)',
        ),
        check="average",
    ),
    "optimizer_reset": Mutation(
        "the optimizer's state is reset silently",
        _one("stages/distill.py", '            saved.fill_optimizer("heads", self.heads)\n', ""),
        check="resume",
    ),
    "damaged_samples": Mutation(
        "damaged samples are read silently",
        _one("engine/shard_reader.py", "if read(path) != stated:", "if False:"),
        test="tests/unit/test_shards.py::test_a_damaged_or_missing_shard_is_named",
    ),
    "one_level_a_batch": Mutation(
        "one noise level for the whole batch",
        _one(
            "engine/draws.py",
            "law(rows.total, step, source, levels=self.levels)",
            "law(1, step, source, levels=self.levels).expand(rows.total)",
        ),
        check="levels-per-sample",
    ),
    "one_learning_rate": Mutation(
        "one learning rate for both networks",
        _one("stages/distill.py", "Adam(settings.lr_heads, ", "Adam(settings.lr_student, "),
        check="rates",
    ),
    "sampled_by_the_other_rule": Mutation(
        "stored noise in training, new noise in sampling",
        _one("builders/sampling.py", "(num_steps), recipe.start.rule, ", '(num_steps), "sde", '),
        check="sampler-coupling",
    ),
    "noise_of_another_sample": Mutation(
        "the stored noise is not the sample's own",
        _one("engine/shard_reader.py", "noise.float() if noise", "noise.float().roll(1, 0) if noise"),
        check="stored-noise",
    ),
}
"""By a short name."""
