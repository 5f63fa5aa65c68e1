"""See `benchmarks.architectures.export`."""

from benchmarks.architectures.export import main

if __name__ == "__main__":
    main()
