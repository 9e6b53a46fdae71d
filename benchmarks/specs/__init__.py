"""Settings, frozen and free of torch: what is hashed, and what a plan reads."""
