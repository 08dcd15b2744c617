"""Looking into a run: what the distance would do before training, when samples are decided, what the heads see."""
