"""What the benchmarks share: timing, a server on a socket, the calls that are made."""
