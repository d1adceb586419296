"""What the machine can do: bytes read from memory and matrix products a second, by PyTorch, on all threads or as many as asked for.

    python benches/peers/limits.py limits --inputs DIR --threads 1
    python benches/peers/limits.py limits --inputs DIR --device cuda --dtype bfloat16

Bytes are counted over a sum and a matrix-vector product of 2^28 numbers, floating-point operations over square products; the best of a few rounds counts.
"""

import measurement
import torch

ROUNDS = 5


def main():
    asked = measurement.arguments(__doc__, {"limits": {"device": "cpu", "dtype": "float32"}})
    torch.set_num_threads(asked.threads)
    torch.set_default_device(asked.device)
    torch.set_default_dtype(getattr(torch, asked.dtype))
    large, vector = torch.ones(2**14, 2**14), torch.ones(2**14)
    time = lambda work: best(asked, work)
    read = large.element_size() * large.numel() / min(time(large.sum), time(lambda: large @ vector))
    sizes = (1_024, 2_048) if asked.device == "cpu" else (4_096, 8_192)
    flops = max(2 * size**3 / time(lambda: square @ square) for size in sizes for square in [torch.randn(size, size)])
    measurement.report("torch", asked, 0.0, read_bytes_per_second=read, matrix_flops_per_second=flops)


def best(asked, work):
    """The shortest time in seconds."""
    times = []
    for _ in range(ROUNDS):
        watch, _ = measurement.on_device(asked)
        with watch:
            work()
        times.append(watch.seconds)
    return min(times)


if __name__ == "__main__":
    main()
