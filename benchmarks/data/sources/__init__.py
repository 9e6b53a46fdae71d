"""One source of data = one file that defines SOURCE."""
