"""benchmarks.data.sources"""
