"""Training MiNuGAN and reproducing the experiments of the paper."""
