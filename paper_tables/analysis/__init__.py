"""Records to numbers: which belong together, means and intervals, and what an experiment's records say."""
