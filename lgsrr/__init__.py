"""LGSRR: classify what people intend from what they say and what a video model saw of them.

The library: records, catalog, features, model, loss, training, tracking. Importing it does nothing but define names.
"""

__version__ = "0.1.0"
