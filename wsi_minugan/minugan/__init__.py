"""The network: generator, discriminators, model bundles, predictor."""
