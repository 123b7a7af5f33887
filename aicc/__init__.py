"""aicc: a deep-learning compiler for CPUs."""
