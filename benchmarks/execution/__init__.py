"""benchmarks.execution"""
