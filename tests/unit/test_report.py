"""The page of a run: figures as measured, nothing from outside the file, nothing half-written, nothing injected."""

from __future__ import annotations

import html.parser
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladd_dist.reports.grids import write_grid
from ladd_dist.reports.json_object import JsonObject
from ladd_dist.reports.page import write_report
from ladd_dist.reports.run_files import ShownConfig
from ladd_dist.reports.table import table

TAPS = ["down0", "down1", "middle"]
EVALUATION: dict[str, dict[str, Any]] = {
    "student@4": {
        "fd_real": 14.2,
        "fd_teacher": 5.8123,
        "hue_entropy": 2.452,
        "accuracy": 0.991,
        "colour_variance": 0.1279,
    },
    "student@2": {"fd_real": 15.1, "fd_teacher": 7.1, "hue_entropy": 2.44, "accuracy": 0.988, "colour_variance": 0.12},
    "student@1": {
        "fd_real": 21.3,
        "fd_teacher": 12.5,
        "hue_entropy": 2.41,
        "accuracy": 0.981,
        "colour_variance": 0.1084,
    },
    "teacher@4:karras": {
        "fd_real": 196,
        "fd_teacher": 185.2,
        "hue_entropy": 2.36,
        "accuracy": 0.71,
        "colour_variance": 0.1,
    },
    "teacher@4:good": {
        "fd_real": 26,
        "fd_teacher": 17.5,
        "hue_entropy": 2.47,
        "accuracy": 0.985,
        "colour_variance": 0.129,
    },
    "teacher@50": {
        "fd_real": 11.7,
        "fd_teacher": 3.8,
        "hue_entropy": 2.477,
        "accuracy": 0.994,
        "colour_variance": 0.139,
    },
}
SECONDS = {"student@4": 8e-4, "student@2": 4e-4, "student@1": 2e-4, "teacher@50": 0.02}


def write_run(
    run: Path, *, fresh: bool = False, note: str = "The student starts from the teacher's own noise."
) -> Path:
    """A run folder as the other stages leave it; `fresh` is the one whose student regressed to the class mean."""
    run.mkdir(parents=True, exist_ok=True)
    evaluation = {key: {**figures, "num_samples": 1500.0} for key, figures in EVALUATION.items()}
    for key, seconds in SECONDS.items():
        evaluation[key] |= {"s_per_image": seconds, "timed_turns": 3.0}
    if fresh:
        evaluation["student@4"] |= {"fd_real": 49.0, "fd_teacher": 38.0, "colour_variance": 0.06}
        evaluation["student@1"] |= {"fd_real": 566.0, "fd_teacher": 551.0, "colour_variance": 0.15 * 0.139}
    (run / "eval.json").write_text(json.dumps(evaluation))
    (run / "config.json").write_text(json.dumps(_config(fresh, note)))
    (run / "timings.json").write_text(json.dumps({"teacher": 121.3, "distill": 48.5}))
    rows = "".join(json.dumps(_metrics_row(step)) + "\n" for step in range(10, 310, 10))
    (run / "metrics.jsonl").write_text(rows + '{"step": 310, "loss/he')  # as a killed run leaves it
    teacher = _pictures(16)
    average = np.full_like(teacher, -0.4)
    student = 0.3 * teacher + 0.7 * average if fresh else 0.95 * teacher + 0.05 * average
    write_grid(run / "samples" / "final.png", [("teacher@50", teacher), ("student@4", student), ("student@1", student)])
    for step in (50, 100, 150, 200, 250, 300):
        write_grid(run / "samples" / f"step-{step:06d}.png", [("teacher", teacher), ("student", student)])
    return run


def _config(fresh: bool, note: str) -> dict[str, Any]:
    recipe = {
        "name": "exp2_warmup" if fresh else "exp6_stored_noise",
        "note": note,
        "seed": 3,
        "start": {"plugin": "fresh" if fresh else "stored"},
        "distance": {"plugin": "mse", "sigma_power": 0.0},
        "distill_weight": {"plugin": "constant", "value": 1.0},
        "shards": {"guidance": 4.0, "sampler": {"plugin": "euler", "steps": 50}},
        "student_steps": 4,
        "train": {"steps": 300},
        "reported": {"student_4": 15.48, "teacher_4": 25.29, "teacher_50": 3.66, "outcome": "no collapse"},
    }
    return {
        "format": 1,
        "version": "0.1.0",
        "recipe_path": "recipes/exp6_stored_noise.py",
        "scale": "laptop",
        "signature": "3fa9c1d20b7e",
        "plugins": ["plugins"],
        "recipe": recipe,
        "environment": {"python": "3.11.9", "torch": "2.9.1", "device": "cpu", "threads": 2, "commit": "abc1234"},
        "params": {"teacher": 834211, "student": 834211, "heads": 212345},
        "taps": TAPS,
        "flops": {"student_forward": 20_100_000, "teacher_to_last_tap": 9_800_000, "step": 91_000_000},
    }


def _metrics_row(step: int) -> dict[str, float]:
    done = step / 300
    row = {"step": step, "loss/heads": 1.4 - 0.3 * done, "loss/adversarial": 0.7, "loss/distill": 0.1 * math.exp(-done)}
    row |= {"accuracy": 0.6 + 0.2 * done, "accuracy/real": 0.7, "accuracy/fake": 0.7, "logit_gap": 2.5 * done}
    row |= {"grad_norm/student": 1.0, "grad_norm/heads": 0.4, "weight/adversarial": 0.1, "weight/distill": 1.0}
    row |= {"rate/steps_per_s": 6.4, "rate/samples_per_s": 410.0}
    for tap in TAPS:
        row |= {f"accuracy/real/{tap}": 0.7, f"accuracy/fake/{tap}": 0.6 + 0.1 * done, f"logit_gap/{tap}": 2.0 * done}
    return row


def _pictures(count: int) -> np.ndarray:
    """Discs of different colours on black, [N,3,16,16] in [-1, 1]."""
    random = np.random.default_rng(0)
    across, down = np.meshgrid(np.arange(16), np.arange(16))
    disc = (across - 7.5) ** 2 + (down - 7.5) ** 2 < 30
    return random.uniform(0.2, 1.0, (count, 3, 1, 1)) * disc * 2 - 1


class Page(html.parser.HTMLParser):
    """What the tests ask of a page: its text, and every element with its attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.elements = "", list[tuple[str, dict[str, str | None]]]()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page_says_what_happened_and_carries_the_verdict(tmp_path: Path) -> None:
    path = write_report(write_run(tmp_path / "run"))
    page = Page(path)
    assert path == tmp_path / "run" / "report.html"
    assert "A 50-step diffusion teacher turned into a 4-step student" in page.text
    assert "no collapse: hue entropy 0.99 of the teacher's" in page.text
    assert any("verdict healthy" in (section.get("class") or "") for section in page.all("section"))
    assert "python -m ladd_dist.launch recipes/exp6_stored_noise.py --scale laptop --seed 3" in page.text
    assert "834 k" in page.text and "91 MFLOP" in page.text and "2 min 1 s" in page.text


def test_a_speed_up_is_shown_only_where_both_were_timed_in_turns(tmp_path: Path) -> None:
    """Earlier versions divided the cached seconds of a teacher by those of a student of another day."""
    run = write_run(tmp_path)
    assert "faster" in Page(write_report(run)).text
    found = json.loads((run / "eval.json").read_text())
    del found["teacher@50"]["timed_turns"]
    (run / "eval.json").write_text(json.dumps(found))
    text = Page(write_report(run)).text
    assert "faster" not in text and "ms per picture" in text


def test_figures_of_several_noise_seeds_are_shown_by_their_means(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    plain = Page(write_report(run)).text
    found = json.loads((run / "eval.json").read_text())
    for entry in found.values():
        entry |= {"num_seeds": 2.0, "per_seed": {"11": {"fd_real": 1e5}, "12": {"fd_real": 3e5}}}
    (run / "eval.json").write_text(json.dumps(found))
    assert Page(write_report(run)).text == plain.replace("1,500 pictures a row", "2 × 1,500 pictures a row") != plain


def test_a_collapsed_run_is_called_so_in_the_page_and_in_markdown(tmp_path: Path) -> None:
    path = write_report(write_run(tmp_path, fresh=True))
    for words in (
        "regression to the class mean: student@4 colour variance 0.43 of the teacher's",
        "At other numbers of steps, which do not decide",
        "one step: regression to the class mean: student@1 colour variance 0.15 of the teacher's",
    ):
        assert words in Page(path).text
        assert words in (tmp_path / "report.md").read_text()


def test_nothing_is_loaded_from_outside_the_file(tmp_path: Path) -> None:
    path = write_report(write_run(tmp_path))
    page = Page(path)
    addresses = [
        value for _, attributes in page.elements for key, value in attributes.items() if key in ("src", "href")
    ]
    assert addresses and all(str(address).startswith(("data:", "#")) for address in addresses)
    text = path.read_text()
    assert "http://" not in text and "https://" not in text and "url(//" not in text
    assert path.stat().st_size < 3_000_000


def test_the_tables_figures_are_those_of_the_evaluation(tmp_path: Path) -> None:
    page = Page(write_report(write_run(tmp_path)))
    shown = [float(str(data["value"])) for data in page.all("data")]
    for figures in EVALUATION.values():
        assert all(value in shown for value in figures.values())
    for text in ("5.81", "12.5", "185", "floor", "0.92 of teacher's", "25.0×"):
        assert text in page.text
    for quoted in ("15.48", "25.29", "3.66"):
        assert quoted in page.text


def test_a_run_without_digit_metrics_shows_nothing_of_them(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    own = {"matched_error": 0.2, "pairwise_share": 0.9}
    (run / "eval.json").write_text(json.dumps(dict.fromkeys(("student@4", "untrained@4", "teacher@50"), own)))
    text = Page(write_report(run)).text
    for words in ("published report", "FID", "Fréchet", "class asked for", "was not measured"):
        assert words not in text, words
    table = [row for row in (run / "report.md").read_text().splitlines() if row.startswith("|")]
    assert "–" not in "".join(table)
    assert "Error to teacher at the same noise" in table[0] and "0.200" in table[2], (
        "what the run does measure is in the first table"
    )


def test_the_untrained_student_is_explained_where_it_is_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    assert "before its training" not in Page(write_report(run)).text
    write_grid(run / "samples" / "final.png", [("teacher@50", _pictures(16)), ("untrained@4", _pictures(16))])
    evaluation = json.loads((run / "eval.json").read_text())
    (run / "eval.json").write_text(json.dumps({**evaluation, "untrained@4": evaluation["student@4"]}))
    text = Page(write_report(run)).text
    assert "Untrained student, 4 steps" in text and "The student before its training" in text
    assert "Row untrained@4 is the student before its training" in text
    assert "Untrained student, 4 steps: the student before its training" in (run / "report.md").read_text()


def test_network_calls_count_guidance_twice_and_heun_as_two_but_for_the_last_step() -> None:
    def calls(shards: dict[str, Any]) -> dict[str, float | None]:
        columns, rows = table(EVALUATION, ShownConfig(recipe=JsonObject({"shards": shards})))
        index = [column.key for column in columns].index("calls")
        return {row.key: row.cells[index].value for row in rows}

    euler = calls({"guidance": 4.0, "sampler": {"plugin": "euler"}})
    assert (euler["teacher@50"], euler["teacher@4:good"], euler["student@4"], euler["student@1"]) == (100, 8, 4, 1)
    heun = calls({"guidance": 1.0, "sampler": {"plugin": "heun"}})
    assert (heun["teacher@50"], heun["teacher@4:good"]) == (99, 4)


def test_figures_unknown_here_become_columns_and_other_step_counts_rows() -> None:
    evaluation = {**EVALUATION, "student@8": {"fd_real": 9.0, "inception_fid": 12.25}}
    columns, rows = table(evaluation, ShownConfig())
    assert columns[-1].key == "inception_fid"
    student = next(row for row in rows if row.key == "student@8")
    assert student.cells[-1].value == 12.25
    assert student.title == "Student, 8 steps"


def test_text_of_a_recipe_cannot_become_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=https://example.org/x onerror=alert(2)>"
    path = write_report(write_run(tmp_path, note=evil))
    page = Page(path)
    assert not page.all("script")
    assert all("onerror" not in image for image in page.all("img"))
    assert "<script>" in page.text
    assert "<script>" not in (tmp_path / "report.md").read_text().replace("\\<script\\>", "")


def test_tap_names_cannot_become_markup(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "metrics.jsonl").write_text('{"step": 1, "logit_gap/<script>x": 1.0, "logit_gap/$\\\\frac{$": 2.0}\n')
    assert not Page(write_report(run)).all("script")


@pytest.mark.parametrize("missing", ["metrics.jsonl", "timings.json", "samples"])
def test_optional_files_may_be_missing(tmp_path: Path, missing: str) -> None:
    run = write_run(tmp_path)
    (run / missing).rename(tmp_path / "elsewhere")
    text = Page(write_report(run)).text
    assert "no collapse" in text
    assert ("No training steps were logged" in text) == (missing == "metrics.jsonl")
    assert ("No pictures were kept" in text) == (missing == "samples")


def test_a_run_with_the_barest_figures_still_gives_a_page(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"recipe": {}}')
    (tmp_path / "eval.json").write_text('{"student@4": {"fd_real": 3.0}, "teacher@50": {"fd_real": null}}')
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "loss/distill": 0.5}\n')
    assert "variety was not judged" in Page(write_report(tmp_path)).text


@pytest.mark.parametrize("content", [None, "", '{"student@4": {"fd_real": ', "[1, 2]", "{}", '{"student@4": 5.8}'])
def test_a_missing_or_damaged_evaluation_names_file_and_stage_and_writes_nothing(
    tmp_path: Path, content: str | None
) -> None:
    run = write_run(tmp_path)
    (run / "eval.json").unlink()
    if content is not None:
        (run / "eval.json").write_text(content)
    before = sorted(run.rglob("*"))
    with pytest.raises(ValueError, match=r"eval\.json.*--stages evaluate"):
        write_report(run)
    assert sorted(run.rglob("*")) == before


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    whole = (run / "samples" / "final.png").read_bytes()
    (run / "samples" / "final.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"final\.png"):
        write_report(run)


def test_a_failed_write_leaves_the_page_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path)
    path = write_report(run)
    before, files = path.read_bytes(), sorted(run.rglob("*"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(run)
    assert path.read_bytes() == before
    assert sorted(run.rglob("*")) == files


def test_a_resumed_runs_repeated_steps_count_once_and_broken_lines_are_admitted(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    lines = ['{"step": 10, "loss/distill": 9.0}', '{"step": 2', '{"step": 10, "loss/distill": 0.25}', '{"st']
    (run / "metrics.jsonl").write_text("\n".join(lines))
    page = Page(write_report(run))
    assert "1 unreadable line" in page.text
    summaries = [figure["aria-label"] for figure in page.all("figure") if figure.get("role") == "img"]
    assert summaries == ["Distance to the teacher's samples: distill from 0.25 at step 10 to 0.25 at step 10."]


def test_all_elements_a_screen_reader_needs_are_there(tmp_path: Path) -> None:
    page = Page(write_report(write_run(tmp_path)))
    assert all(image.get("alt") for image in page.all("img"))
    assert "teacher@50, student@4, student@1" in str(page.all("img")[0]["alt"])
    assert all(header.get("scope") in ("row", "col") for header in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_grids_over_training_are_the_first_the_last_and_some_between(tmp_path: Path) -> None:
    text = Page(write_report(write_run(tmp_path))).text
    assert [step for step in (50, 100, 150, 200, 250, 300) if f"After {step} steps" in text] == [50, 150, 200, 300]
