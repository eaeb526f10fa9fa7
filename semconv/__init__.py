"""What insider-otel exports, as a registry of semantic conventions, and the page of documentation made from it."""
