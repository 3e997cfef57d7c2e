"""So that torchrun can start it: `torchrun -m minugan_training fit …`."""

from minugan_training.cli.main import main

if __name__ == "__main__":
    main()
