"""Distances, regularisers and targets."""

from __future__ import annotations

from mutating import Mutation, one

MUTANTS: dict[str, Mutation] = {
    "weight_grows_with_noise": Mutation(
        "the distance's weight has the wrong sign in its exponent",
        one("losses/distance.py", ".square()).pow(-power)", ".square()).pow(power)"),
        test="tests/unit/test_gan.py::test_the_sigma_weight_is_1_at_power_0_and_falls_with_noise_otherwise",
    ),
    "huber_constant_without_root": Mutation(
        "the constant of pseudo-Huber grows with the number of pixels, not with its root",
        one(
            "losses/distance.py", "self.c_scale * math.sqrt(difference.shape[1])", "self.c_scale * difference.shape[1]"
        ),
        test="tests/unit/test_gan.py::test_pseudo_huber_is_the_root_of_the_sum_with_a_constant_that_grows_with_size",
    ),
    "r1_not_halved": Mutation(
        "R1 is twice what gamma says",
        one(
            "regularisers/penalties.py",
            "0.5 * self.gamma * self.slope(inputs, inputs.real)",
            "self.gamma * self.slope(inputs, inputs.real)",
        ),
        test="tests/unit/test_gan.py::test_r1_of_a_linear_head_is_half_gamma_times_its_squared_norm",
    ),
    "r1_on_fakes": Mutation(
        "R1 looks at the student's samples",
        one(
            "regularisers/penalties.py",
            "self.slope(inputs, inputs.real)",
            "self.slope(inputs, inputs.fake)",
        ),
        test="tests/unit/test_gan.py::test_r1_looks_at_real_features_only",
    ),
    "both_penalties_as_one_mean": Mutation(
        "R1 plus R2 is their mean",
        one("regularisers/penalties.py", "return len(sides) * ", "return "),
        test="tests/unit/test_gan.py::test_r2_looks_at_fake_features_and_r1_r2_at_both",
    ),
    "gradient_penalty_summed_over_logits": Mutation(
        "the gradient penalty is of the sum of a head's K logits, not of their mean",
        one("regularisers/penalties.py", "inputs.cond_vec, mean=True)", "inputs.cond_vec, mean=False)"),
        test="tests/unit/test_gan.py::test_gradient_penalty_of_a_head_with_several_logits_is_of_their_mean",
    ),
    "centring_of_the_gap": Mutation(
        "centring penalises the gap between real and fake logits",
        one("regularisers/centring.py", "(first + second).square()", "(first - second).square()"),
        test="tests/unit/test_regularisers.py::test_centring_is_the_mean_square_of_the_sum_of_real_and_fake_logits",
    ),
    "every_process_looks_at_its_first_row": Mutation(
        "which samples are looked at depends on the process that has them",
        one("regularisers/__init__.py", "first = -batch.first % every", "first = 0"),
        test="tests/unit/test_regularisers.py::test_one_sample_in_four_is_looked_at_whoever_has_it",
    ),
    "one_in_every_is_taken_as_exact": Mutation(
        "a batch that `every` does not divide weighs its penalty wrongly",
        one("regularisers/__init__.py", "batch.total / math.ceil(batch.total / every)", "every"),
        test="tests/unit/test_regularisers.py::test_one_sample_in_four_is_looked_at_whoever_has_it",
    ),
    "slope_divided_once": Mutation(
        "the difference quotient is squared before it is divided by eps",
        one(
            "regularisers/approximate.py",
            "((after - before) / self.eps).square()",
            "(after - before).square() / self.eps",
        ),
        test="tests/unit/test_regularisers.py::test_one_sample_in_four_is_looked_at_whoever_has_it",
    ),
    "only_the_last_term": Mutation(
        "a sum of penalties is its last term",
        one("regularisers/total.py", "total = total + term(inputs)", "total = term(inputs)"),
        test="tests/unit/test_regularisers.py::test_a_sum_is_the_sum_and_says_whether_a_term_differentiates",
    ),
    "target_above_its_input": Mutation(
        "a target with the input's noise may lie at a higher level than the input",
        one("targets/pulls.py", "level, eps = torch.minimum(level, sigma), ", "level, eps = level, "),
        test="tests/unit/test_methods.py::test_with_its_inputs_noise_the_target_is_the_samplers_next_step",
    ),
    "target_says_the_inputs_level": Mutation(
        "the teacher's view of a fake is told to be at the input's level",
        one("targets/pulls.py", "level, batch.cond), level)", "level, batch.cond), sigma)"),
        test="tests/unit/test_methods.py::test_adds_target_is_the_teachers_denoising_at_levels_and_noise_of_its_own",
    ),
    "input_target_in_unit_variance": Mutation(
        "the student's input as a target has unit variance, not the data's",
        one("targets/pulls.py", "scale = SIGMA_DATA / (sigma", "scale = 1 / (sigma"),
        test="tests/unit/test_methods.py::test_the_input_as_target_has_the_datas_variance_at_every_level",
    ),
    "penalty_at_another_scale": Mutation(
        "moved inputs are moved in units of x0, not of the network's input",
        one("engine/discriminator.py", "+ scale * shift, cond", "+ shift, cond"),
        test="tests/unit/test_regularisers.py::"
        "test_it_tends_to_the_squared_slope_along_its_noise_with_the_order_of_a_difference_quotient",
    ),
}
