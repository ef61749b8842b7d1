"""Chaos: extraction, training and search on the bundled sample while whatever they stand on is taken away.

    python -m tests.chaos --seed 7 --minutes 10

A plan is drawn from the seed and printed, so that what failed can be run again. Each round of it is one command, from
nothing to its end, disturbed in one way (`plan.KINDS`); a command that dies is given again, as a person would. At the
end a table says whether each output is that of an undisturbed run, what was paid, what was paid twice, and how much
longer it took. A round whose output differs, or that paid twice for more than was in flight, ends it with an error.
"""
