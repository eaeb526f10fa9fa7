"""A small shop in Django that tells Insider who signs up, what is ordered and what is for sale."""
