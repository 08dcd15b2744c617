"""The stages of a run, one function each: `stage(run) -> what it made`. A stage that is done is skipped."""

STAGES = ("features", "autoencoder", "teacher", "shards", "distill", "evaluate", "report")
"""Their names in order; the first two only for recipes with a metric or a codec that is trained."""
