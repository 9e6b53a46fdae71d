"""One builder per model family."""
