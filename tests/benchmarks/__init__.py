"""Tests of the experiment suite: data, metrics, runner, plan and command line."""
