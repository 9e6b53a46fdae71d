"""From text to token ids: tokenizers, packing, windows."""
