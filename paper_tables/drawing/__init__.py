"""What figures share: one style, and panels that several figures draw."""
