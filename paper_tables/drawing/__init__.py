"""One style of all figures, and panels that several figures draw."""
