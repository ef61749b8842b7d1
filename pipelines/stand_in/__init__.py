"""A small OpenAI-compatible server that stands in for a language model in tests, benchmarks and the demo.

    python -m pipelines.stand_in --port 8000 [--faults FILE.json] [--rpm N] [--tpm N] [--latency-s S]

It answers by rules from the request's own text, the same to the same request, and says in every answer that it is a
stand-in. It can be told to fail in each way that a real server does (`faults`), to enforce limits (`limits`), and it
records what it saw (`seen`). Tests start it in a thread or a process of their own (`server.serve`, `process.serve`).
"""
