"""Metrics on finished samples."""

from __future__ import annotations

from mutating import Mutation, one

MUTANTS: dict[str, Mutation] = {
    "covariance_biased": Mutation(
        "the covariance divides by N",
        one("metrics/frechet.py", "centred / (len(rows) - 1))", "centred / len(rows))"),
        test="tests/unit/test_metrics.py::test_moments_are_those_of_torch",
    ),
    "frechet_parts_of_the_shift_halved": Mutation(
        "a sample's part of the shift between means is half of its derivative",
        one("metrics/frechet.py", "parts.append(2.0 * away @ shift", "parts.append(away @ shift"),
        test="tests/unit/test_metric_figures.py::"
        "test_the_parts_are_the_derivative_of_the_distance_by_the_weight_of_a_sample",
    ),
    "kernel_with_its_diagonal": Mutation(
        "the kernel distance counts each sample with itself: it is biased",
        one(
            "metrics/kernel.py",
            "(sums(rows, rows) - diagonal(rows)) / (len(rows) - 1)",
            "sums(rows, rows) / len(rows)",
        ),
        test="tests/unit/test_metric_figures.py::test_the_kernel_distance_of_two_points_each_is_worked_out_by_hand",
    ),
    "kernel_without_its_dimension": Mutation(
        "the kernel's product is not divided by the number of features",
        one("metrics/kernel.py", "alpha=1.0 / x.shape[1])", "alpha=1.0)"),
        test="tests/unit/test_metric_figures.py::test_the_subset_estimate_is_clean_fids",
    ),
    "neighbour_after_the_kth": Mutation(
        "a radius reaches to the neighbour after the k-th",
        one("metrics/neighbours.py", "away.topk(k, dim=1", "away.topk(k + 1, dim=1"),
        test="tests/unit/test_metric_figures.py::test_distances_in_blocks_are_the_distances",
    ),
    "recall_by_the_references_balls": Mutation(
        "recall asks whether samples lie in the reference's balls",
        one(
            "metrics/manifold.py", "(away <= own_radii[rows, None]).any(dim=0)", "(away <= reference_radii).any(dim=0)"
        ),
        test="tests/unit/test_metric_figures.py::test_recall_is_by_the_samples_balls_and_coverage_by_the_references",
    ),
    "density_not_over_k": Mutation(
        "density is the number of balls, not divided by k",
        one("metrics/manifold.py", "inside / k, covered", "inside, covered"),
        test="tests/unit/test_metric_figures.py::test_a_set_is_inside_its_own_manifold",
    ),
    "diversity_with_itself": Mutation(
        "the mean distance within a class counts each sample's distance from itself",
        one(
            "metrics/diversity.py",
            "for _, away in blocks(rows, rows)]) / (len(members) - 1)",
            "for _, away in blocks(rows, rows)]) / len(members)",
        ),
        test="tests/unit/test_metric_figures.py::test_the_distance_within_classes_is_the_mean_over_classes",
    ),
    "hue_share_of_all": Mutation(
        "the share of a hue is of all samples, grey ones too",
        one("metrics/color.py", "minlength=bins).double() / len(coloured)", "minlength=bins).double() / len(rgb)"),
        test="tests/unit/test_metrics.py::test_half_grey_halves_the_entropy",
    ),
    "colour_darkened_by_soft_strokes": Mutation(
        "a pixel weighs by its ink, not by the ink's square",
        one("metrics/color.py", "/ ink.square().sum(dim=(2, 3))", "/ ink.sum(dim=(2, 3))"),
        test="tests/unit/test_metrics.py::test_the_ink_gives_the_colour_whatever_the_stroke",
    ),
    "training_samples_are_their_own_neighbours": Mutation(
        "the usual distance between training samples is each one's distance from itself",
        one("metrics/memorising.py", "nearest(rows, rows, same=True)", "nearest(rows, rows)"),
        test="tests/unit/test_metric_figures.py::test_copies_are_at_distance_zero_and_new_samples_at_the_usual_one",
    ),
    "teacher_is_the_real_set": Mutation(
        "`fd_teacher` is measured to the real images",
        one(
            "metrics/digit_color.py",
            'teacher = frechet_reference(digit_color(references.teacher)["features"])',
            "teacher = real",
        ),
        test="tests/unit/test_metrics.py::test_fd_and_fd_teacher_are_measured_to_their_own_reference",
    ),
    "class_figures_against_all": Mutation(
        "figures of a class are measured against the teacher's samples of all classes",
        one("metrics/__init__.py", "self.teacher.of_class(number), matched, ", "self.teacher, matched, "),
        test="tests/unit/test_metric_figures.py::test_the_references_of_a_class_are_of_that_class",
    ),
    "all_of_the_reference": Mutation(
        "samples are held against more of the reference than there are samples: its balls are smaller",
        one("metrics/manifold.py", "same_number = chosen.first(len(samples))", "same_number = chosen"),
        test="tests/unit/test_metric_figures.py::test_samples_are_held_against_as_many_of_the_reference",
    ),
    "diversity_against_all_classes": Mutation(
        "samples of one class are held against the teacher's variety in all classes",
        one(
            "metrics/diversity.py",
            "same = Part(references.teacher, asked.nonzero()[:, 0])",
            "same = references.teacher",
        ),
        test="tests/unit/test_metric_figures.py::"
        "test_samples_of_some_classes_are_held_against_the_teachers_of_these_classes",
    ),
    "usual_distance_of_the_other_set": Mutation(
        "the distance to the teacher's samples is divided by the usual one of the real images",
        one("metrics/memorising.py", "float(within(name).mean())", 'float(within("train").mean())'),
        test="tests/unit/test_metric_figures.py::test_each_nearest_share_is_of_the_usual_distance_in_its_own_set",
    ),
}
