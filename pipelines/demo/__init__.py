"""The whole system on one machine in five minutes: `make demo`, or `python -m pipelines.demo`."""
