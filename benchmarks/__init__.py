"""The experiments: which model meets which data, method and metric, and what is written down about it.

Every run becomes one record in `results/records`; tables and plots are made from those records alone. `python -m
benchmarks list` shows what there is, `python -m benchmarks reproduce --tier smoke` runs all of it on any laptop.
"""
