"""benchmarks.pretrained"""
