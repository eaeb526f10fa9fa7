"""Deferred calls at rest."""
