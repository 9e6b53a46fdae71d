"""Zero-shot tasks through lm-eval, and multiple-choice continuations of the suite's own."""
