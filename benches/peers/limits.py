"""What the machine can do: bytes read from memory and f32 matrix products a second, by PyTorch, on all threads or as many as asked for.

    python benches/peers/limits.py limits --inputs DIR --threads 1

Bytes are counted over a sum and a matrix-vector product of 1 GiB, floating-point operations over square products; the best of a few rounds counts.
"""

import measurement
import torch

ROUNDS = 5


def main():
    asked = measurement.arguments(__doc__, {"limits": {}})
    torch.set_num_threads(asked.threads)
    large, vector = torch.ones(2**14, 2**14), torch.ones(2**14)
    read = 4 * large.numel() / min(best(large.sum), best(lambda: large @ vector))
    flops = max(2 * size**3 / best(lambda: square @ square) for size in (1_024, 2_048) for square in [torch.ones(size, size)])
    measurement.report("torch", asked, 0.0, read_bytes_per_second=read, matrix_flops_per_second=flops)


def best(work):
    """The shortest time in seconds."""
    times = []
    for _ in range(ROUNDS):
        watch = measurement.Stopwatch()
        with watch:
            work()
        times.append(watch.seconds)
    return min(times)


if __name__ == "__main__":
    main()
