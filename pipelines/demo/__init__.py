"""The whole system on one machine: `make demo`, or `python -m pipelines.demo`."""
