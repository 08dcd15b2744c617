"""The stages of a run, one function each: `stage(run) -> what it made`. A stage that is done is skipped."""
