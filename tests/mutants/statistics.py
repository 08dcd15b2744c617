"""Comparisons over seeds, and sweeps."""

from __future__ import annotations

from mutating import Edit, Mutation, one

_AXES = "ladd_dist/recipe/axes.py"

MUTANTS: dict[str, Mutation] = {
    "one_sided_interval": Mutation(
        "the 95 % interval of a mean leaves out 5 % at each end",
        one("comparison/statistics.py", "half = t_quantile(1 - ALPHA / 2, len", "half = t_quantile(1 - ALPHA, len"),
        test="tests/unit/test_compare_statistics.py::test_the_pooled_interval_is_scipys",
    ),
    "deviation_as_error": Mutation(
        "the standard deviation is taken for the standard error",
        one(
            "comparison/statistics.py",
            "return mean, math.sqrt(variance / len(values))",
            "return mean, math.sqrt(variance)",
        ),
        test="tests/unit/test_compare_statistics.py::test_the_pooled_interval_is_scipys",
    ),
    "best_minus_other": Mutation(
        "a paired difference has the wrong sign",
        one("comparison/statistics.py", "other[seed] - best[seed]", "best[seed] - other[seed]"),
        test="tests/unit/test_compare_statistics.py::"
        "test_the_paired_difference_is_scipys_and_blind_to_what_seeds_have_in_common",
    ),
    "degrees_of_all_runs": Mutation(
        "a paired test has the degrees of freedom of all runs",
        one(
            "comparison/statistics.py",
            'error, len(shared) - 1, "paired"',
            'error, len(other) + len(best) - 2, "paired"',
        ),
        test="tests/unit/test_compare_statistics.py::"
        "test_the_paired_difference_is_scipys_and_blind_to_what_seeds_have_in_common",
    ),
    "pairs_of_the_smaller_side": Mutation(
        "two shared seeds of many throw the other runs away",
        one("comparison/statistics.py", "2 * len(shared) >= max(len", "2 * len(shared) >= min(len"),
        test="tests/unit/test_compare_statistics.py::test_two_shared_seeds_do_not_throw_away_the_runs_of_the_larger_side",
    ),
    "welch_with_pooled_degrees": Mutation(
        "Welch's test has the degrees of freedom of equal variances",
        one("comparison/statistics.py", "total**2 / parts if parts else len(other)", "len(other)"),
        test="tests/unit/test_compare_statistics.py::test_other_seeds_are_compared_by_welch",
    ),
    "holm_from_the_wrong_end": Mutation(
        "the smallest p-value is held against the laxest level",
        one("comparison/statistics.py", "alpha / (len(differences) - rank)", "alpha / (rank + 1)"),
        test="tests/unit/test_compare_statistics.py::test_holm_holds_the_smallest_p_against_the_strictest_level",
    ),
    "holm_goes_on_after_a_failure": Mutation(
        "a difference counts although a smaller p-value has failed",
        one("comparison/statistics.py", "        if open_:\n", "        if True:\n"),
        test="tests/unit/test_compare_statistics.py::test_holm_holds_the_smallest_p_against_the_strictest_level",
    ),
    "a_seed_counted_twice": Mutation(
        "a run of the same recipe and seed replaces the first one without a word",
        one("comparison/variants.py", " in by_seed:\n            twice", " is None:\n            twice"),
        test="tests/unit/test_compare.py::test_the_same_run_twice_would_pass_for_two_seeds_and_is_refused",
    ),
    "a_teachers_runs_are_draws": Mutation(
        "each run on a teacher counts as a draw of its own, in an interval over teachers",
        one(
            "comparison/variants.py",
            "run.teacher_seed if self.over_teachers else run.seed",
            "1000 * run.teacher_seed + run.seed",
        ),
        test="tests/unit/test_compare_real.py::test_with_several_teachers_the_interval_is_over_teachers",
    ),
    "random_points_repeat": Mutation(
        "a random sweep draws points that it has already",
        one(
            "recipe/axes.py",
            "if found.setdefault(run_of(point), point) is point)",
            "if found.setdefault(str(len(found)), point) is point)",
        ),
        test="tests/unit/test_random_sweeps.py::test_a_budget_of_all_points_gives_each_of_them",
    ),
    "random_ignores_its_seed": Mutation(
        "random sweeps of all seeds draw the same points",
        one("recipe/axes.py", "random.Random(mode.seed)", "random.Random(0)"),
        test="tests/cluster/test_expansion.py::test_draws_keep_to_their_budget_and_are_the_same_for_the_same_seed",
    ),
    "log_range_is_linear": Mutation(
        "a logarithmic range is drawn evenly: nine tenths of the draws are in its last decade",
        (
            Edit(_AXES, "(math.log(self.low), math.log(self.high)) if self.log else (self.low", "(self.low"),
            Edit(_AXES, "exact = math.exp(drawn) if self.log else drawn", "exact = drawn"),
        ),
        test="tests/unit/test_random_sweeps.py::test_a_logarithmic_range_draws_as_often_from_each_decade",
    ),
    "each_difference_alone": Mutation(
        "each variant is held against the best as if it were the only one",
        one(
            "comparison/result.py",
            "holm([difference(variant.values(sampler, metric), best) for variant in measured[1:]])",
            "[holm([difference(variant.values(sampler, metric), best)])[0] for variant in measured[1:]]",
        ),
        test="tests/unit/test_compare.py::test_the_more_variants_are_held_against_the_best_the_more_each_has_to_differ",
    ),
    "higher_is_never_better": Mutation(
        "the lowest accuracy is the best",
        one("comparison/result.py", 'sign = 1 if better == "lower" else -1', "sign = 1"),
        test="tests/unit/test_compare.py::test_higher_is_better_where_the_metric_says_so",
    ),
    "infinite_figures_count": Mutation(
        "a figure that is infinite or no number is one seed's figure",
        one("comparison/variants.py", ' and abs(value) < float("inf")', ""),
        test="tests/unit/test_compare.py::test_a_figure_that_is_not_finite_is_no_figure",
    ),
    "curves_go_on_after_their_end": Mutation(
        "the mean over seeds has the last figure of a seed that ended early",
        one(
            "comparison/curves.py", "(steps >= table.steps[0]) & (steps <= table.steps[-1])", "steps >= table.steps[0]"
        ),
        test="tests/unit/test_compare.py::test_curves_are_thinned_and_an_unfinished_seed_ends_early",
    ),
}
