"""Compares what optune gets over HTTP with transformers and huggingface_hub.

    cargo build --release
    python tests/python/servers.py target/release/optune MODEL PROMPTS.jsonl

Serves MODEL (a Hugging Face directory) with transformers behind OpenAI's completions API and as a repository of a hub, on loopback. Then

- greedy responses by that server, asked with token ids, are those that optune samples itself, id by id; asked with text, word by word;
- huggingface_hub and transformers read the cache that optune downloads into, and optune the cache that huggingface_hub downloads into.

Exits with 1 if anything differs.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import torch
import transformers

PROMPTS, TOKENS, COMMIT = 24, 40, "0123456789abcdef0123456789abcdef01234567"
program, folder, prompts = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), Path(sys.argv[3])
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """A server of one model and of one repository. `takes_ids` says whether prompts may be token ids."""

    takes_ids = True

    def log_message(self, *_):
        pass

    def reply(self, status, body, headers=()):
        self.send_response(status)
        for name, value in [("Content-Length", str(len(body))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply_json(self, value, status=200):
        self.reply(status, json.dumps(value).encode())

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        path = self.path.split("?")[0]
        if path == "/v1/models":
            return self.reply_json({"object": "list", "data": [{"id": "tiny", "object": "model", "owned_by": "transformers"}]})
        if path.startswith("/api/models/org/tiny/tree"):
            tree = [{"type": "file", "path": name, "size": len(bytes), "oid": hashlib.sha1(bytes).hexdigest()} for name, bytes in files.items()]
            return self.reply_json(tree)
        if path.startswith("/api/models/org/tiny"):
            siblings = [{"rfilename": name, "size": len(bytes)} for name, bytes in files.items()]
            return self.reply_json({"id": "org/tiny", "sha": COMMIT, "private": False, "downloads": 0, "tags": [], "siblings": siblings})
        name = path.rsplit("/", 1)[-1]
        if not path.startswith("/org/tiny/resolve/") or name not in files:
            return self.reply(404, b"", [("X-Error-Code", "EntryNotFound")])
        etag = hashlib.sha256(files[name]).hexdigest()
        headers = [("ETag", f'"{etag}"'), ("X-Repo-Commit", COMMIT), ("Accept-Ranges", "bytes")]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start:
            headers.append(("Content-Range", f"bytes {start}-{len(files[name]) - 1}/{len(files[name])}"))
        self.reply(206 if start else 200, files[name][start:], headers)

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = asked["prompt"]
        if isinstance(prompt, list) and not Handler.takes_ids:
            return self.reply_json({"error": "prompt: expected a string"}, 400)
        if isinstance(prompt, str):
            prompt = tokenizer(prompt, add_special_tokens=asked["add_special_tokens"])["input_ids"]
        with lock, torch.no_grad():
            ids = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=asked["max_tokens"], pad_token_id=0)[0].tolist()
        new = ids[len(prompt) :]
        ends = model.generation_config.eos_token_id
        stopped = new[-1] in (ends if isinstance(ends, list) else [ends])
        # The text of a response begins where that of its prompt ends: a tokenizer may drop the first space of a text.
        whole, before = (tokenizer.decode(part, skip_special_tokens=True) for part in (ids, prompt))
        choice = {"index": 0, "text": whole[len(before) :], "finish_reason": "stop" if stopped else "length"}
        if Handler.takes_ids:
            choice |= {"token_ids": new, "prompt_token_ids": prompt}
        self.reply_json({"choices": [choice], "usage": {"prompt_tokens": len(prompt)}})


def optune(space, *arguments, **variables):
    result = subprocess.run([program, *arguments], cwd=space, env=os.environ | variables, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{arguments}: {result.stderr}")
    return result.stdout


def responses(space, run, columns):
    rows = optune(space, "sql", run, f"SELECT prompt_id, finish_reason, {columns} FROM responses ORDER BY 1", "--format", "json")
    return [json.loads(line) for line in rows.splitlines()]


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    space = Path(tempfile.mkdtemp())
    rows = prompts.read_text().splitlines()[:PROMPTS]
    (space / "prompts.jsonl").write_text("".join(json.dumps({"prompt_id": f"{i:03}"} | json.loads(row)) + "\n" for i, row in enumerate(rows)))

    def pipeline(name, source, engine=""):
        text = f"""optune: 1
name: {name}
inputs:
  prompts: {{ table: prompts.jsonl }}
  base: {{ model: "{source}" }}
nodes:
  responses: {{ generate: {{ policy: base, prompts: prompts, responses_per_prompt: 1, max_new_tokens: {TOKENS}, temperature: 0{engine} }} }}
"""
        (space / f"{name}.yaml").write_text(text)
        return f"{name}.yaml"

    engine = f', engine: {{ openai: "{url}/v1", model: tiny, concurrency: 4 }}'
    optune(space, "run", pipeline("local", folder))
    wrong = []
    for name, takes_ids, columns in [("ids", True, "token_ids, prompt_token_count, text"), ("text", False, "text")]:
        Handler.takes_ids = takes_ids
        optune(space, "run", pipeline(name, folder, engine))
        expected, found = responses(space, "local", columns), responses(space, name, columns)
        same = sum(a == b for a, b in zip(expected, found, strict=True))
        print(f"greedy, asked with {name}: {same} of {len(expected)} responses are the same")
        if same != len(expected):
            wrong.append(name)

    cache = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}
    ours, theirs = space / "ours", space / "theirs"
    optune(space, "run", pipeline("hub", "hf://org/tiny"), **cache, HF_HUB_CACHE=str(ours))
    config = huggingface_hub.try_to_load_from_cache("org/tiny", "config.json", cache_dir=ours)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(Path(config).parent, dtype=torch.float32)
    equal = all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True))
    print(f"transformers loads optune's cache: {'the same weights' if equal else 'other weights'}")
    huggingface_hub.snapshot_download("org/tiny", cache_dir=theirs, endpoint=url)
    optune(space, "run", pipeline("offline", "hf://org/tiny"), HF_ENDPOINT="http://127.0.0.1:1", HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(theirs))
    again = responses(space, "offline", "text") == responses(space, "local", "text")
    print(f"optune loads huggingface_hub's cache: {'the same responses' if again else 'other responses'}")
    huggingface_hub.snapshot_download("org/tiny", cache_dir=ours, endpoint=url)
    blobs = len(list((ours / "models--org--tiny" / "blobs").iterdir()))
    print(f"huggingface_hub finds optune's blobs: {blobs} blobs of {len(list(folder.iterdir()))} files")
    if wrong or not equal or not again or blobs != len(list(folder.iterdir())):
        sys.exit(1)


main()
