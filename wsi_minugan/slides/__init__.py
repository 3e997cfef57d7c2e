"""Reading slides: frames, pixels, tissue, and the list of inputs."""
