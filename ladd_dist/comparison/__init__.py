"""Comparison of finished runs: which variant wins, with what certainty, and which collapsed when.

runs        a run folder, a sweep or W&B data -> `Run`
variants    runs that differ in nothing but the seed are one variant; what may be compared with what
statistics  intervals, differences, correction for several of them; pure
collapse    from which step a run's student had lost its colours
result      all of it as one `Comparison`, its JSON and CSV
curves      training curves of variants, thinned for the page
page        compare.html
"""
