"""The training step, its random numbers, averages and what watches it."""

from __future__ import annotations

from mutating import Mutation, one

_DRAWS = "tests/unit/test_ladd_step.py::test_the_draws_of_a_step_have_nothing_in_common_with_each_other"
_ANEW = "tests/unit/test_head_turns.py::test_rollout_target_and_penalty_draw_anew_in_each_step_and_each_by_itself"
_PLACES = "tests/unit/test_build_step.py::test_every_part_of_the_recipe_is_in_its_place"

MUTANTS: dict[str, Mutation] = {
    "penalty_at_the_first_draws": Mutation(
        "the penalty of a further update moves inputs at the first update's levels and noise",
        one("engine/heads_update.py", "self.penalty(part, fake, on_real", "self.penalty(parts[micro], fake, on_real"),
        test="tests/unit/test_head_turns.py::test_the_penalty_of_each_update_moves_the_inputs_which_that_update_saw",
    ),
    "penalty_always_of_the_first_turn": Mutation(
        "every update's penalty is drawn with the first one's random numbers",
        one(
            "engine/heads_update.py",
            "on_fake, step, turn)\n                figures",
            "on_fake, step, 0)\n                figures",
        ),
        test="tests/unit/test_head_turns.py::test_the_penalty_of_each_update_has_random_numbers_of_its_own",
    ),
    "head_sums_of_the_first_update": Mutation(
        "the logits that are logged by head are those of the first update, not the last",
        one("engine/heads_update.py", "turn == self.head_updates - 1:", "turn == 0:"),
        test="tests/unit/test_head_turns.py::test_the_figures_by_head_are_those_of_the_last_update",
    ),
    "head_sums_at_the_critics_level": Mutation(
        "with a critic that re-noises nothing the bins are those of levels that no sample was at",
        one(
            "engine/heads_update.py", "part.draws.tau if self.critic.renoises else part.inputs.sigma", "part.draws.tau"
        ),
        test="tests/unit/test_head_turns.py::test_without_re_noising_the_figures_are_by_the_level_of_the_students_input",
    ),
    "fake_features_of_the_first_draws": Mutation(
        "every update of the heads reuses the fakes' features of the first draws",
        one("engine/heads_update.py", "known = shared[micro] if turn == 0 else None", "known = shared[micro]"),
        test="tests/unit/test_ladd_step.py::test_fused_and_alternate_give_the_same_gradients",
    ),
    "distance_at_the_inputs_level": Mutation(
        "the distance is weighed by the level of the student's input, not of its target",
        one(
            "engine/ladd_step.py",
            "self.distance(fake, target.x0, target.sigma)",
            "self.distance(fake, target.x0, part.inputs.sigma)",
        ),
        test="tests/unit/test_methods.py::test_the_distance_of_a_step_is_weighed_at_the_level_of_the_target",
    ),
    "guard_does_not_lower_the_weight": Mutation(
        "the guard's factor does not reach the adversarial weight",
        one("engine/ladd_step.py", "control.adv_factor * self.adv_weight(step)", "self.adv_weight(step)"),
        test="tests/unit/test_head_sums.py::test_a_lowered_weight_is_the_schedules_times_the_factor",
    ),
    "weights_of_the_next_step": Mutation(
        "schedules are one step ahead",
        one("engine/ladd_step.py", "self.distill_weight(step)", "self.distill_weight(step + 1)"),
        test="tests/unit/test_head_turns.py::test_both_weights_are_those_of_the_updates_done_so_far",
    ),
    "micro_batches_by_global_rows": Mutation(
        "a rank cuts its own rows at their places in the global batch",
        one("engine/draws.py", "slice(own.first - rows.first, own.stop - rows.first)", "slice(own.first, own.stop)"),
        test="tests/unit/test_micro_batches.py::"
        "test_the_rows_of_a_share_are_parted_into_micro_batches_of_the_global_batch",
    ),
    "noise_of_the_first_turn": Mutation(
        "every update of the heads re-noises with the same noise",
        one(
            "engine/draws.py",
            "self.source(purpose, rows, step, turn, device=device, ",
            "self.source(purpose, rows, step, 0, device=device, ",
        ),
        test=_DRAWS,
    ),
    "one_noise_for_two_purposes": Mutation(
        "samples are re-noised with the noise of the student's input",
        one("engine/draws.py", 'noise("renoise", again)', 'noise("start", again)'),
        test=_DRAWS,
    ),
    "wrong_condition_may_be_right": Mutation(
        "a mismatched pair may have its own condition",
        one("engine/draws.py", "1 + (place * (self.wrong_of - 1)).long()", "(place * self.wrong_of).long()"),
        test="tests/unit/test_mismatched.py::"
        "test_a_wrong_condition_is_each_of_the_others_equally_often_and_never_the_right_one",
    ),
    "critic_is_told_the_right_condition": Mutation(
        "the critic's features of a mismatched sample are those of the right condition",
        one(
            "engine/heads_update.py",
            "critique(self.critic, part.batch.x0, wrong)",
            "critique(self.critic, part.batch.x0, part)",
        ),
        test="tests/unit/test_mismatched.py::test_the_heads_loss_is_a_mixture_of_both_kinds_of_fakes",
    ),
    "levels_of_the_first_step": Mutation(
        "every step has the same noise levels",
        one("engine/draws.py", "generator(purpose, self.seed, step, turn)", "generator(purpose, self.seed, turn)"),
        test="tests/unit/test_head_turns.py::test_levels_are_drawn_anew_in_each_step_and_for_each_purpose",
    ),
    "levels_of_one_purpose": Mutation(
        "the heads' levels are drawn with the student's random numbers",
        one(
            "engine/draws.py", "generator(purpose, self.seed, step, turn)", 'generator("sigma", self.seed, step, turn)'
        ),
        test="tests/unit/test_head_turns.py::test_levels_are_drawn_anew_in_each_step_and_for_each_purpose",
    ),
    "every_rank_has_the_first_levels": Mutation(
        "each rank takes the first levels of the global batch",
        one("engine/draws.py", "[rows.first : rows.stop] for", "[: len(rows)] for"),
        test="tests/unit/test_micro_batches.py::"
        "test_the_rows_of_a_share_are_parted_into_micro_batches_of_the_global_batch",
    ),
    "rollout_begins_at_the_sample": Mutation(
        "the student's own run begins at the noised sample, not at pure noise",
        one("engine/draws.py", "batch._replace(x0=torch.zeros_like(batch.x0))", "batch"),
        test="tests/unit/test_methods.py::test_every_step_asks_the_student_what_the_sampler_would",
    ),
    "class_distance_without_its_root": Mutation(
        "the distance within a class is a mean of squares: shares of the teacher's are squared",
        one("engine/diversity.py", "float(squares[same].mean().sqrt())", "float(squares[same].mean())"),
        test="tests/unit/test_diversity.py::test_distances_are_root_mean_squares_over_pairs",
    ),
    "average_ramps_by_updates": Mutation(
        "the ramp limits the half-life to a share of updates, not of samples",
        one("engine/ema.py", "self.ramp * updates * self.batch_size", "self.ramp * updates"),
        test="tests/unit/test_ema.py::test_the_ramp_limits_the_half_life_to_a_share_of_the_samples_seen",
    ),
    "adversarial_norm_of_the_mean": Mutation(
        "the usual norm is that of a sample's share of the batch's loss",
        one("engine/adv_norm.py", " / self.factor * len(gradient)", " / self.factor"),
        test="tests/unit/test_adv_norm.py::test_the_gradient_is_divided_by_the_root_mean_square_norm_of_a_sample",
    ),
    "adversarial_norm_forgets_fast": Mutation(
        "the decay is taken for the share of the new",
        one(
            "engine/adv_norm.py",
            "self.decay * self.state + (1 - self.decay) * torch",
            "(1 - self.decay) * self.state + self.decay * torch",
        ),
        test="tests/unit/test_adv_norm.py::test_the_mean_runs_over_steps_with_adams_correction",
    ),
    "edges_belong_below": Mutation(
        "a level at the edge of a bin counts in the bin below",
        one(
            "engine/head_statistics.py",
            "torch.bucketize(tau, self.edges, right=True)",
            "torch.bucketize(tau, self.edges)",
        ),
        test="tests/unit/test_head_sums.py::test_an_edge_belongs_to_the_bin_above_it_and_bins_are_named_by_their_edges",
    ),
    "figures_divided_by_all_steps": Mutation(
        "a figure that some steps lack is divided by all steps of the window",
        one(
            "engine/loop.py",
            "        figures = {name: value / self.counts[name] for",
            "        figures = {name: value / self.steps for",
        ),
        test="tests/unit/test_loop.py::test_a_window_averages_each_figure_over_the_steps_that_had_it",
    ),
    "cosine_rises": Mutation(
        "the learning rate begins at its final share and rises",
        one("engine/loop.py", "(1 + math.cos(", "(1 - math.cos("),
        test="tests/unit/test_stage_steps.py::test_both_learning_rates_fall_along_the_cosine",
    ),
    "rates_compound": Mutation(
        "the learning-rate factor multiplies the rate of the step before",
        one("parallel/base.py", 'group["lr"] = self.base_lr * factor', 'group["lr"] = group["lr"] * factor'),
        test="tests/unit/test_compute.py::test_the_learning_rate_factor_multiplies_the_base_rate",
    ),
    "shared_rows_counted_twice": Mutation(
        "samples that two ranks both made count twice in the guard's sum",
        one(
            "engine/guard_monitor.py",
            "rows[self.first : self.rows.stop] = own[self.first - self.rows.first :]",
            "rows[self.rows.first : self.rows.stop] = own",
        ),
        test="tests/unit/test_guard_monitor.py::test_ranks_share_the_samples_and_together_have_each_once",
    ),
    "rollout_drawn_once": Mutation(
        "the rows that get the student's own inputs are the same in each step",
        one("engine/draws.py", 'self.source("rollout", rows, step, device', 'self.source("rollout", rows, device'),
        test=_ANEW,
    ),
    "target_drawn_once": Mutation(
        "a target that draws levels and noise draws the same in each step",
        one("engine/ladd_step.py", 'source_of(part, "target", step)', 'source_of(part, "target")'),
        test=_ANEW,
    ),
    "target_drawn_as_the_heads_noise": Mutation(
        "a target re-noises with the noise by which the heads compare",
        one("engine/ladd_step.py", 'source_of(part, "target", step)', 'source_of(part, "renoise", step, 0)'),
        test=_ANEW,
    ),
    "guard_looks_at_the_first_of_many_levels": Mutation(
        "the guard looks at one step at the first level of the student's sampler",
        one("engine/guard_monitor.py", "self.levels[steps],\n", "self.levels[max(self.levels)][:steps],\n"),
        test="tests/unit/test_guard_monitor.py::test_each_number_of_steps_is_looked_at_by_its_own_levels",
    ),
    "adversarial_norm_grows_with_ranks": Mutation(
        "the usual norm is a sum over ranks",
        one("engine/adv_norm.py", ".mean()) / self.ranks.size\n", ".mean())\n"),
        test="tests/unit/test_adv_norm.py::test_ranks_that_see_the_same_have_the_norm_of_one",
    ),
    "laws_exchanged": Mutation(
        "the heads compare at the student's levels",
        one("builders/step.py", "renoise_sigma=recipe.renoise_sigma", "renoise_sigma=recipe.student_sigma"),
        test=_PLACES,
    ),
    "weights_exchanged": Mutation(
        "the distance has the adversarial weight",
        one("builders/step.py", "distill_weight=recipe.distill_weight", "distill_weight=recipe.adv_weight"),
        test=_PLACES,
    ),
    "noise_of_the_teachers_seed": Mutation(
        "runs of all seeds have the same noise and levels",
        one("builders/step.py", "            seed=recipe.seed,\n", "            seed=recipe.teacher.seed,\n"),
        test=_PLACES,
    ),
    "old_samples_without_their_noise": Mutation(
        "an old sample of a tuning starts from new noise, so that its target is the mean of all samples",
        one(
            "engine/draws.py",
            "eps = torch.where(batch.old.view(-1, 1, 1, 1), batch.noise, draws.start_eps)",
            "eps = draws.start_eps",
        ),
        test="tests/unit/test_tune_step.py"
        "::test_an_old_row_starts_from_the_noise_of_its_sample_where_that_belongs_to_it",
    ),
    "old_rows_held_at_stored_samples": Mutation(
        "a tuning asks the student for a stored sample in one step, and it learns the mean of what it made before",
        one(
            "engine/draws.py",
            "index_copy(0, where, answers.to(batch.x0.dtype))",
            "index_copy(0, where, batch.x0[where])",
        ),
        test="tests/unit/test_tune_step.py"
        "::test_an_old_row_should_stay_what_the_student_before_training_makes_of_its_own_input",
    ),
    "critic_shown_unmoved_samples": Mutation(
        "the critic sees samples as they are, and learns few pictures by heart",
        one(
            "engine/heads_update.py",
            "        part.draws.shown(x0), part.batch.cond, part.draws.tau, part.draws.renoise_eps, part.inputs.sigma",
            "        x0, part.batch.cond, part.draws.tau, part.draws.renoise_eps, part.inputs.sigma",
        ),
        test="tests/unit/test_tune_step.py::test_the_critic_is_shown_moved_samples",
    ),
}
