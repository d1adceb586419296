"""llama.cpp: `generate` (benches/README.md), through its library's batched decoding, which is what its server and its batched bench use too.

    CMAKE_ARGS="-DGGML_NATIVE=ON -DMTMD_BUILD=OFF" pip install gguf llama-cpp-python --no-binary llama-cpp-python
    python benches/peers/llama_cpp_generate.py generate --inputs DIR --model llama-15m --batch 8 --tokens 128

The first call for a model writes it as f32 GGUF beside its Hugging Face weights. Sequences are decoded together, one `llama_decode` a token; the most probable
tokens are found by numpy in the logits as they lie. Weights are f32, but by default llama.cpp keeps keys and values in f16 and computes attention with flash
attention, in part in f16 too. `--attention f32` turns both off: it is slower, and gives the ids that transformers gives.
"""

import contextlib
import multiprocessing
import os

import llama_cpp
import measurement
import numpy as np

FILE = "model-f32.gguf"
# Of enum ggml_type and enum llama_flash_attn_type.
F32, DISABLED = 0, 0
# Kept here, because the library calls it to the end.
SILENCE = llama_cpp.llama_log_callback(lambda *_: None)


def main():
    asked = measurement.arguments(__doc__, {"generate": {"model": "", "batch": None, "tokens": None, "attention": "default"}})
    folder = asked.inputs / asked.model
    if not (folder / FILE).exists():
        # Elsewhere, so that this process's memory is llama.cpp's.
        writer = multiprocessing.get_context("spawn").Process(target=write_gguf, args=(folder, folder / FILE))
        writer.start()
        writer.join()
    prompts = np.array(measurement.read_json(asked.inputs / "prompts.json")["prompts"][: asked.batch])
    ids, seconds = generate(folder / FILE, prompts, asked)
    measurement.report("llama.cpp", asked, seconds, tokens=ids.size, token_ids=ids[0].tolist(), attention=asked.attention)


def generate(path, prompts, asked):
    count, prompt_tokens = prompts.shape
    llama_cpp.llama_log_set(SILENCE, None)
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    assert model, f"{path}: llama.cpp cannot load it; remove it to have it written anew"
    settings = llama_cpp.llama_context_default_params()
    settings.n_seq_max = count
    # What a sequence may use is rounded up to 256.
    settings.n_ctx = count * -(-(prompt_tokens + asked.tokens) // 256) * 256
    settings.n_batch = settings.n_ubatch = max(512, prompts.size)
    settings.n_threads = settings.n_threads_batch = asked.threads
    if asked.attention == "f32":
        settings.type_k = settings.type_v = F32
        settings.flash_attn_type = DISABLED
    context = llama_cpp.llama_init_from_model(model, settings)
    memory = llama_cpp.llama_get_memory(context)
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    batch = llama_cpp.llama_batch_init(prompts.size, 0, 1)

    def most_probable(tokens, position):
        """Feeds `tokens`, `[count, new]`, which begin at `position`; the next token of each sequence."""
        new = tokens.shape[1]
        batch.n_tokens = tokens.size
        for index, token in enumerate(tokens.ravel().tolist()):
            batch.token[index] = token
            batch.pos[index] = position + index % new
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = index // new
            batch.logits[index] = index % new == new - 1
        status = llama_cpp.llama_decode(context, batch)
        assert status == 0, f"llama_decode: {status}"
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (count * vocabulary,))
        return logits.reshape(count, vocabulary).argmax(1)

    def greedily(tokens):
        llama_cpp.llama_memory_clear(memory, False)
        found = [most_probable(prompts, 0)]
        for position in range(prompt_tokens, prompt_tokens + tokens - 1):
            found.append(most_probable(found[-1][:, None], position))
        return np.stack(found, 1)

    greedily(8)
    watch = measurement.Stopwatch()
    with watch:
        found = greedily(asked.tokens)
    return found, watch.seconds


def write_gguf(folder, path):
    """A Llama as llama.cpp reads it: without a vocabulary, and with the rows of each query's and key's head in the order of its rotary pairs (first of the
    first half, first of the second half, …)."""
    import gguf
    # numpy does not know bf16.
    from safetensors.torch import load_file

    config = measurement.read_json(folder / "config.json")
    heads, key_value_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_value_heads)
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("no_vocab")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])

    def in_pairs(weight, heads):
        return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)

    for name, weight in load_file(folder / "model.safetensors").items():
        weight = weight.float().numpy()
        if "q_proj" in name:
            weight = in_pairs(weight, heads)
        if "k_proj" in name:
            weight = in_pairs(weight, key_value_heads)
        writer.add_tensor(names.get_name(name, try_suffixes=[".weight"]), np.ascontiguousarray(weight))
    with contextlib.redirect_stdout(open(os.devnull, "w")):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


if __name__ == "__main__":
    main()
