"""benchmarks.models"""
