"""Data sets as the network sees them: index, images, labels, and checks of both."""
