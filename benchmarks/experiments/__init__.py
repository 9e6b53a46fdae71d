"""One experiment = one file; its header gives the question, the command, the hours per tier and the expected result."""
