"""benchmarks.data.zero_shot"""
