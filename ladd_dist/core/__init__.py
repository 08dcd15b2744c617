"""Pure building blocks: no input or output except `rundir`, no knowledge of any kind's implementations."""
