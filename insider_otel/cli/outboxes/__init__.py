"""What ``insider-otel outbox`` does with an outbox, whoever opens it: ``manage.py insider_outbox`` does the same."""
