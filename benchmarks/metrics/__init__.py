"""One family of metrics = one file: what is measured, in which unit, and whether more is better."""
