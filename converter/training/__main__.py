"""``accelerate launch -m converter.training ...``: adapter-train in several processes."""

from converter.cli.train import main

if __name__ == "__main__":
    main()
