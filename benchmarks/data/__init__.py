"""Data: what a source gives, images, examples, augmentation, calibration, and what is cached of them."""
