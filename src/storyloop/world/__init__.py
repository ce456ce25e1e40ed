"""The world: everything that touches processes, git, the network, the clock and the disk."""
