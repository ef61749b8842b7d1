"""The search for LGSRR's hyperparameters on Ray Tune, its report, and the promotion of a winner."""
