"""Serves a Llama model by llama.cpp's server or by `transformers serve`, for tests/it/generation/server/real.rs.

    python tests/python/generation_server.py llamacpp|transformers MODEL PORT

MODEL is a Hugging Face directory with a tokenizer of merges and byte fallback. The PyPI package xllamacpp has llama.cpp's server, compiled; its
model is written as a GGUF of 32 bits into a temporary folder. `transformers serve` names the model as MODEL is written here.
"""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import fastapi
import gguf
import numpy as np
import openai
import uvicorn
import xllamacpp
from safetensors.numpy import load_file


def main(kind, model, port):
    if kind == "transformers":
        # What it imports only when it serves.
        assert fastapi and openai and uvicorn
        program = [sys.executable, "-m", "transformers.cli.transformers", "serve", model, "--host", "127.0.0.1", "--port", port]
        os.execv(sys.executable, [*program, "--device", "cpu", "--dtype", "float32"])
    with tempfile.TemporaryDirectory() as space:
        path = Path(space) / "model.gguf"
        write_gguf(Path(model), path)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.model_alias = {"stories"}
        params.port = int(port)
        params.n_ctx = 1024
        params.n_parallel = 2
        # Keys and values as here, or near ties are decided otherwise.
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        server = xllamacpp.Server(params)
        print(server.listening_address, flush=True)
        signal.pause()


def write_gguf(folder, path):
    """The rows of each query's and key's head stand in the order of its rotary pairs: first of the first half, first of the second half, …"""
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())["model"]
    heads, key_value_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_value_heads)
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    add_tokenizer(writer, tokenizer, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])

    def in_pairs(weight, heads):
        return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)

    for name, weight in load_file(folder / "model.safetensors").items():
        if "q_proj" in name:
            weight = in_pairs(weight, heads)
        if "k_proj" in name:
            weight = in_pairs(weight, key_value_heads)
        writer.add_tensor(names.get_name(name, try_suffixes=[".weight"]), np.ascontiguousarray(weight.astype(np.float32)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer, tokenizer, config):
    """As SentencePiece has it: an earlier merge has a higher score."""
    tokens = sorted(tokenizer["vocab"], key=tokenizer["vocab"].get)
    ranks = {"".join(pair): rank for rank, pair in enumerate(reversed(tokenizer["merges"]))}
    lowest = len(tokenizer["merges"])
    kinds = gguf.TokenType
    special = {"<unk>": kinds.UNKNOWN, "<s>": kinds.CONTROL, "</s>": kinds.CONTROL}
    is_byte = [len(token) == 6 and token.startswith("<0x") for token in tokens]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([float(ranks.get(token, -lowest) - lowest) for token in tokens])
    writer.add_token_types([special.get(token, kinds.BYTE if byte else kinds.NORMAL) for token, byte in zip(tokens, is_byte)])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(True)


main(*sys.argv[1:])
