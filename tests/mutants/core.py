"""Noise levels, games, timesteps and random numbers."""

from __future__ import annotations

from mutating import Mutation, one

MUTANTS: dict[str, Mutation] = {
    "lsgan_student_wants_fake": Mutation(
        "the student's label is that of fakes",
        one("core/gan.py", "return (_precise(fake) - 1).square().mean()", "return _precise(fake).square().mean()"),
        test="tests/unit/test_gan.py::test_losses_match_their_closed_form",
    ),
    "relativistic_student_plays_for_the_heads": Mutation(
        "the student does not swap real and fake",
        one("core/gan.py", "-(_precise(fake) - _precise(real))", "-(_precise(real) - _precise(fake))"),
        test="tests/unit/test_gan.py::test_losses_match_their_closed_form",
    ),
    "heads_are_summed": Mutation(
        "the loss is summed over heads, so more taps train harder",
        one(
            "core/gan.py",
            "for mapping in logits)) for tap in taps]).mean()",
            "for mapping in logits)) for tap in taps]).sum()",
        ),
        test="tests/unit/test_gan.py::test_over_heads_averages_heads_whatever_their_number_of_logits",
    ),
    "guidance_from_the_conditional": Mutation(
        "guidance starts at the conditional half: the scale is one too large",
        one(
            "core/noise.py",
            "found = unconditional + scale * (conditional - unconditional)",
            "found = conditional + scale * (conditional - unconditional)",
        ),
        test="tests/unit/test_noise.py::test_guidance_is_linear_in_its_scale_and_takes_one_call",
    ),
    "levels_one_short": Mutation(
        "Karras levels are spaced by N and not by N - 1",
        one("core/noise.py", "(high + i / (num_steps - 1) * (low - high))", "(high + i / num_steps * (low - high))"),
        test="tests/unit/test_noise.py::test_karras_levels_are_the_published_ones",
    ),
    "edm_weight_of_the_sum": Mutation(
        "the teacher's loss weight divides by (sigma + sigma_data)^2",
        one("core/noise.py", "/ (sigma * sigma_data) ** 2", "/ (sigma + sigma_data) ** 2"),
        test="tests/unit/test_noise.py::test_the_edm_loss_weight_is_one_over_out_squared",
    ),
    "epsilon_of_the_wrong_sign": Mutation(
        "epsilon-prediction adds the predicted noise",
        one("core/noise.py", "torch.ones_like(sigma), -sigma", "torch.ones_like(sigma), sigma"),
        test="tests/unit/test_noise.py::test_ddpm_preconditioning_is_epsilon_prediction",
    ),
    "sde_keeps_its_level": Mutation(
        "the sde rule re-noises to the level that it comes from",
        one("core/noise.py", "x = x0 + following * source.normal", "x = x0 + level * source.normal"),
        test="tests/unit/test_noise.py::test_the_sde_rule_has_the_variance_of_its_closed_form",
    ),
    "ode_forgets_the_level": Mutation(
        "the ode rule does not divide the noise by its level",
        one("core/noise.py", "x = x0 + following / level * (x - x0)", "x = x0 + following * (x - x0)"),
        test="tests/unit/test_noise.py::test_the_ode_rule_keeps_the_direction_of_the_noise",
    ),
    "posterior_variance_is_beta": Mutation(
        "the posterior has the variance of the forward jump",
        one("core/ddpm.py", "variance=noise_s * (1 - alpha) / noise_t", "variance=1 - alpha"),
        test="tests/unit/test_ddpm.py::test_the_posterior_is_the_chain_conditioned_on_both_ends",
    ),
    "blocks_share_their_numbers": Mutation(
        "rows 64 to 127 of a batch get the numbers of rows 0 to 63",
        one("core/rng.py", "*([number] if number else [])", "*[]"),
        test="tests/unit/test_rng.py::test_no_two_rows_calls_or_seeds_share_their_numbers",
    ),
    "copies_share_their_numbers": Mutation(
        "a row that is trained on several times gets the same noise each time",
        one("core/rng.py", '[[f"again-{turn}"] if turn else [] for turn', '[["again"] if turn else [] for turn'),
        test="tests/unit/test_methods.py::test_a_repeated_source_begins_with_the_numbers_of_one_that_is_not",
    ),
    "classes_in_one_order": Mutation(
        "the order of classes is the same in each run of them",
        one("core/rng.py", 'generator("classes", seed, block)', 'generator("classes", seed)'),
        test="tests/unit/test_rng.py::"
        "test_every_run_of_indices_as_long_as_the_classes_holds_each_class_once_in_changing_order",
    ),
    "noise_without_its_seed": Mutation(
        "held-out noise is that of the shards, whatever the seed",
        one("core/rng.py", 'generator("noise", seed, index)', 'generator("noise", index)'),
        test="tests/unit/test_rng.py::test_a_samples_noise_depends_on_seed_and_index_alone",
    ),
}
