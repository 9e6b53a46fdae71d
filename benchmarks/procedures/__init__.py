"""One procedure = one file with `execute(run, context)`, found by the name that the settings carry."""
