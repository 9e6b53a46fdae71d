"""benchmarks.data.text"""
