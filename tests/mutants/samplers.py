"""Samplers, couplings, laws of noise levels and rollouts."""

from __future__ import annotations

from mutating import Mutation, one

MUTANTS: dict[str, Mutation] = {
    "heun_is_euler_at_the_end": Mutation(
        "Heun's method takes the slope at the end alone",
        one("samplers/karras.py", "(slope + slope_next) / 2", "slope_next"),
        test="tests/unit/test_samplers.py::test_the_error_falls_with_the_order_of_the_method",
    ),
    "recorded_states_mirrored": Mutation(
        "a recorded state inside a step lies at the mirrored place",
        one("samplers/karras.py", "torch.lerp(x_next, x, ", "torch.lerp(x, x_next, "),
        test="tests/unit/test_samplers.py::test_recorded_states_lie_on_the_trajectory",
    ),
    "ancestral_variance_as_deviation": Mutation(
        "ancestral sampling multiplies its noise by the variance",
        one("samplers/ancestral.py", "variance**0.5 * fresh", "variance * fresh"),
        test="tests/unit/test_ddpm.py::test_samples_of_gaussian_data_have_their_mean_and_variance",
    ),
    "ancestral_beta_is_the_posteriors": Mutation(
        "the variance beta_t is that of the posterior",
        one("samplers/ancestral.py", "else 1 - now / later", "else law.variance"),
        test="tests/unit/test_ddpm.py::test_the_variance_beta_gives_more_and_is_exact_for_unit_normal_data",
    ),
    "ancestral_in_units_of_the_next_step": Mutation(
        "the network is given x_t in the units of the next step",
        one("samplers/ancestral.py", "edm = x / now**0.5", "edm = x / later**0.5"),
        test="tests/unit/test_ddpm.py::test_the_network_is_called_at_the_levels_in_their_units",
    ),
    "ancestral_noise_of_the_batch": Mutation(
        "the new noise of every sample is the first one's",
        one("samplers/ancestral.py", "hashlib.blake2b(row.tobytes()", "hashlib.blake2b(rows[0].tobytes()"),
        test="tests/unit/test_ddpm.py::test_a_sample_is_the_same_in_any_batch_and_from_noise_that_was_stored_in_half_precision",
    ),
    "ot_is_sampled_with_new_noise": Mutation(
        "coupling `ot` says `sde`: its map of noise is not kept to in sampling",
        one(
            "starts/couplings.py",
            'pairs contradict its map.\n    """\n\n    rule = "ode"',
            'pairs contradict its map.\n    """\n\n    rule = "sde"',
        ),
        test="tests/unit/test_couplings.py::test_each_coupling_names_the_sampling_rule_that_matches_it",
    ),
    "phase_begins_late": Mutation(
        "a phase of the levels begins one step late",
        one("sigmas/laws.py", "if step >= phase.start_step", "if step > phase.start_step"),
        test="tests/unit/test_couplings.py::test_a_fixed_set_follows_its_phases",
    ),
    "log_normal_has_the_variance_as_deviation": Mutation(
        "ln sigma is spread by std^2",
        one("core/noise.py", "torch.exp(mean + std * torch", "torch.exp(mean + std**2 * torch"),
        test="tests/unit/test_noise.py::test_log_normal_levels_have_the_asked_mean_and_deviation",
    ),
    "timesteps_without_the_last": Mutation(
        "the last timestep is never drawn",
        one("sigmas/timesteps.py", "torch.randint(self.timesteps, (num,)", "torch.randint(self.timesteps - 1, (num,)"),
        test="tests/unit/test_ddpm.py::test_timesteps_are_drawn_uniformly",
    ),
    "rollout_share_inverted": Mutation(
        "`share` is the share of rows without the student's own inputs",
        one("rollouts/policies.py", "source.uniform() < self.share", "source.uniform() >= self.share"),
        test="tests/unit/test_methods.py::test_on_policy_gives_a_share_of_rows_their_own_state_at_their_own_level",
    ),
    "own_states_of_another_level": Mutation(
        "a row gets the student's state of the level after its own",
        one("rollouts/policies.py", "(which == number)", "(which == number + 1)"),
        test="tests/unit/test_methods.py::test_on_policy_gives_a_share_of_rows_their_own_state_at_their_own_level",
    ),
}
