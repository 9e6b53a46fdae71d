"""Trained models that experiments start from: found, trained once, or told to be missing."""
