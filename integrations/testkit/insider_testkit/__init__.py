"""What the adapters' tests share: a receiver for spans, and real servers. No distribution: tests find it by path."""
