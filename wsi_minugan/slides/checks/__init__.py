"""Whether a slide's pixels are what its file says: codestreams, pages, levels, colours, resolutions."""
