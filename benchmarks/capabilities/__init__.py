"""Try what two libraries can do with one model, and check it by the weights themselves."""
