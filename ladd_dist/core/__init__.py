"""What every other room may use: it imports none of them, and knows no kind's implementations.

Formulas without input or output: `noise`, `gan`, `ddpm`, `rng`, `types`. Names and data: `plugin` (the registry, which
imports modules), `pyfile`, `serialize`, `errors`. Input and output, a module for each: `rundir` (files that are whole
or absent), `metrics_log`, `conditions` (memory-mapped embeddings), `features` (a small network with its weights),
`pretrained` (files of the model hub), `slurm` (its commands), `signals`, `failure` (a rank's last words).
"""
