"""One source of data = one file that defines SOURCE; tokenizer and packing stand beside them."""
