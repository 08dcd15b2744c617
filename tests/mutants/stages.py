"""Stages, the teacher's loss, and shards."""

from __future__ import annotations

from mutating import Mutation, one

_STEPS = "tests/unit/test_stage_steps.py"

MUTANTS: dict[str, Mutation] = {
    "label_dropout_inverted": Mutation(
        "the teacher keeps the class of a tenth of the samples and drops the others'",
        one(
            "stages/teacher.py",
            "generator=source) < settings.label_dropout",
            "generator=source) >= settings.label_dropout",
        ),
        test=f"{_STEPS}::test_the_teacher_trains_a_share_of_its_samples_without_their_class",
    ),
    "every_rank_drops_the_first_labels": Mutation(
        "each rank drops the labels that the first rank drops",
        one("stages/teacher.py", "sent(dropped[rows], ", "sent(dropped[: len(cond)], "),
        test=f"{_STEPS}::test_two_ranks_train_the_teacher_on_what_one_would",
    ),
    "every_rank_has_the_first_noise": Mutation(
        "each rank noises its images with the first rank's noise",
        one("stages/teacher.py", "device=self.device)[rows]\n", "device=self.device)[: len(x0)]\n"),
        test=f"{_STEPS}::test_two_ranks_train_the_teacher_on_what_one_would",
    ),
    "every_rank_flips_the_first_rows": Mutation(
        "each rank flips the images that the first rank flips",
        one("stages/teacher.py", "sent(turned[rows], ", "sent(turned[: len(x0)], "),
        test=f"{_STEPS}::test_a_teacher_whose_data_are_flipped_sees_mirror_images_half_of_the_time_and_the_same_on_any_rank",
    ),
    "teacher_sees_one_batch": Mutation(
        "the teacher's images and dropped labels are the same in each step",
        one("stages/teacher.py", 'generator("teacher", settings.seed, step)', 'generator("teacher", settings.seed)'),
        test=f"{_STEPS}::test_each_step_of_the_teacher_has_images_levels_and_noise_of_its_own",
    ),
    "teacher_rate_stays": Mutation(
        "the teacher's learning rate does not fall",
        one(
            "stages/teacher.py",
            "self.trainable.set_lr_factor(cosine_factor(step, settings.steps, settings.lr_final))",
            "self.trainable.set_lr_factor(1.0)",
        ),
        test=f"{_STEPS}::test_the_teachers_learning_rate_falls_along_the_cosine",
    ),
    "simple_weight_without_its_square": Mutation(
        "L_simple divides by sigma, not by its square",
        one("builders/teacher.py", "else 1 / sigma**2", "else 1 / sigma"),
        test="tests/unit/test_ddpm.py::test_the_simple_weighting_is_the_error_of_the_predicted_noise",
    ),
    "heads_rate_stays": Mutation(
        "the heads' learning rate does not fall with the student's",
        one("stages/distill.py", "        self.heads.set_lr_factor(factor)\n", ""),
        test=f"{_STEPS}::test_both_learning_rates_fall_along_the_cosine",
    ),
    "order_of_the_teachers_seed": Mutation(
        "runs of all seeds read the teacher's samples in one order",
        one(
            "stages/distill.py",
            "settings.batch_size, self.run.recipe.seed, rows)",
            "settings.batch_size, self.run.recipe.teacher.seed, rows)",
        ),
        test=f"{_STEPS}::test_a_step_reads_its_rows_of_its_batch_in_the_order_of_the_runs_seed",
    ),
    "every_rank_reads_the_first_rows": Mutation(
        "each rank reads the first rows of the global batch",
        one("stages/distill.py", "range(self.rows.first, self.rows.stop)", "range(len(self.rows))"),
        test=f"{_STEPS}::test_a_step_reads_its_rows_of_its_batch_in_the_order_of_the_runs_seed",
    ),
    "average_one_update_behind": Mutation(
        "the average's ramp counts one update too few",
        one("stages/distill.py", "self.average.update(step + 1)", "self.average.update(step)"),
        test=f"{_STEPS}::test_average_and_guard_are_told_the_updates_done",
    ),
    "small_set_measured_at_multiples_alone": Mutation(
        "a row that is logged after an interval, not at it, has no figures of the small set",
        one("stages/distill.py", "updates // every > (updates - log_every) // every", "updates % every == 0"),
        test=f"{_STEPS}::test_the_small_set_is_measured_with_the_first_row_after_each_interval_and_at_the_end",
    ),
    "evaluated_on_the_shards_noise": Mutation(
        "samples for the dumps come from the shards' noise, on which the student was trained",
        one("stages/sample_monitor.py", "sample_starts(recipe.evaluate.seed, ", "sample_starts(recipe.shards.seed, "),
        test=f"{_STEPS}::test_the_shown_samples_are_of_held_out_noise",
    ),
    "shards_of_one_seed": Mutation(
        "the shards' seed changes nothing",
        one("stages/shards.py", "sample_starts(settings.seed, indices", "sample_starts(0, indices"),
        test="tests/unit/test_shards.py::test_the_stored_noise_is_the_one_from_which_the_sample_was_made",
    ),
    "shards_begin_at_zero": Mutation(
        "every chunk holds the samples of the first one",
        one(
            "stages/shards.py",
            "range(start, min(start + self.recipe.shards.batch_size, last))",
            "range(start - first, min(start + self.recipe.shards.batch_size, last) - first)",
        ),
        test="tests/unit/test_shards.py::test_a_chunk_holds_the_samples_of_its_own_indices",
    ),
    "chunk_before_its_first_row": Mutation(
        "the first sample of a chunk is looked for in the chunk before",
        one("engine/shard_reader.py", 'indices, side="right") - 1', 'indices, side="left") - 1'),
        test="tests/unit/test_shards.py::test_samples_can_be_taken_in_any_order_and_twice",
    ),
    "batches_of_a_ranks_rows": Mutation(
        "a rank goes on by its own rows and not by the global batch",
        one("engine/shard_reader.py", "positions = step * batch_size + ", "positions = step * len(rows) + "),
        test="tests/unit/test_shards.py::test_the_ranks_parts_put_together_are_the_whole_batch",
    ),
    "one_order_for_all_epochs": Mutation(
        "every epoch has the order of the first",
        one("engine/shard_reader.py", 'generator("order", seed, epoch)', 'generator("order", seed)'),
        test="tests/unit/test_shards.py::test_the_order_depends_on_seed_and_epoch_alone",
    ),
    "one_epoch_a_batch": Mutation(
        "a batch that straddles two epochs reads the second in the first one's order",
        one("engine/shard_reader.py", "self._order(seed, int(epoch))", "self._order(seed, int(epochs[0]))"),
        test="tests/unit/test_shards.py::test_every_sample_comes_once_an_epoch_also_in_batches_that_straddle_two",
    ),
    "labels_of_the_sorted_batch": Mutation(
        "classes come in the order of storage, samples in that of the batch",
        one(
            "engine/shard_reader.py",
            "x0.float(),\n            cond,\n",
            "x0.float(),\n            cond.sort().values,\n",
        ),
        test="tests/unit/test_shards.py::test_samples_can_be_taken_in_any_order_and_twice",
    ),
    "imported_noise_lost": Mutation(
        "imported samples lose their noise where a chunk has several",
        one(
            "stages/imported.py",
            "Chunk(x0, cond, noise, path)\n",
            "Chunk(x0, cond, noise if len(parts) == 1 else None, path)\n",
        ),
        test="tests/unit/test_shards.py::test_imported_samples_keep_their_noise_row_by_row",
    ),
    "changed_shard_trusted": Mutation(
        "a shard of somebody else that has changed since it was verified is not verified again",
        one("engine/foreign_survey.py", "if found.stamp != _stamp(path) or found.checks", "if found.checks"),
        test="tests/unit/test_import.py::"
        "test_a_verified_shard_that_has_changed_since_is_verified_again_and_nothing_of_it_is_kept",
    ),
    "heads_have_the_students_betas": Mutation(
        "the heads' optimizer has the student's betas",
        one(
            "stages/distill.py", "settings.lr_heads, settings.betas_heads", "settings.lr_heads, settings.betas_student"
        ),
        test="tests/unit/test_checkpoint_stages.py::test_student_and_heads_have_their_own_rates_and_betas",
    ),
    "early_stop_a_measurement_late": Mutation(
        "a training goes on for one more measurement than its patience",
        one("stages/held_out.py", ">= self.settings.patience", "> self.settings.patience"),
        test="tests/unit/test_tune_parts.py::test_a_training_ends_when_no_measurement_in_a_row_was_better",
    ),
    "old_samples_judged_by_new_pictures": Mutation(
        "what a tuning forgot is measured on samples of the new conditions, and the other way round",
        one("evaluation/tuned.py", "(KID_HELD_OUT, new), (KID_OLD, old)", "(KID_HELD_OUT, old), (KID_OLD, new)"),
        test="tests/unit/test_tuned_figures.py::"
        "test_the_student_before_is_at_its_floor_and_one_that_forgot_is_far_above",
    ),
    "forgetting_within_chance": Mutation(
        "a rise of kid_old that other samples might bring about is called forgetting",
        one("reports/tuned_verdict.py", "is_apart = _bound(evaluation[few], KID_OLD, LOW) >", "is_apart = mine >"),
        test="tests/unit/test_tuned_verdict.py::test_a_difference_within_the_intervals_is_no_forgetting_and_no_gain",
    ),
}
