"""Decisions: pure, without I/O, clock or randomness but what is passed in."""
