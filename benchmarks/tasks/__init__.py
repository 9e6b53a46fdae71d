"""One task = one file with a function `load(run, folder)` that returns a `benchmarks.task.Task`."""
