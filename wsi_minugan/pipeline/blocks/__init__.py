"""What is done block by block: patches through the network, and objects packed, stored and drawn."""
