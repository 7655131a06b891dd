"""What a step costs: FLOPs, bytes and collectives of a compiled program, and how long they take."""
