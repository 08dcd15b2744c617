"""Pages, tables, charts and picture grids made of a run's files alone."""
