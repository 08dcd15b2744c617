"""Comparison of finished runs: which variant wins, with what certainty, and which collapsed when.

runs        a run folder, a sweep or W&B data -> `Run`
variants    runs that differ in nothing but the seed are one variant; what may be compared with what
statistics  intervals, differences, correction for several of them; pure
result      all of it as one `Comparison`; output: its JSON and CSV; terminal: its table
curves      training curves of variants, thinned for the page
page        compare.html
"""
