"""What a call leaves behind: spans, events, metrics, and nothing that is secret or personal."""
