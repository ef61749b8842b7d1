"""Extraction: from clips and their text to descriptions. A program on the library `lgsrr`; it never imports `tune`."""
