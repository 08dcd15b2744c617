"""Building blocks of every other room: types, formulas, randomness, files, the registry. They import no kind."""
