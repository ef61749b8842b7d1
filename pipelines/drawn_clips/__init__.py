"""Short clips of drawn people: who does what, with which face, towards whom, where; as numbers, frames and words."""
