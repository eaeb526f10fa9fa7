"""A Django project: what the tests ask in process, and what real servers serve to them."""
