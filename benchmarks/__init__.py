"""What a step costs: this project and its alternatives under the same workloads, on one machine, in one run.

`python -m benchmarks` measures; README.md says what each figure means. Nothing here is part of the package.
"""
