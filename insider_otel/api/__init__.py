"""Facts about Insider, and what reads them: the documented responses, the documented operations, and ``classify``."""
