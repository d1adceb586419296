"""Compares chat templates as this crate writes them with those that transformers writes, text and token ids, for every template that TRL ships.

    python tests/python/chat_templates.py            # from the repository's root; needs transformers, trl and cargo

Every template meets every conversation, with and without a generation prompt. Where transformers raises, this crate must refuse.
No template is left out: one that expects images is given text too, and then both must write (or refuse) the same.
`--golden` renders our own templates in tests/chat_templates anew: those in constructs.jsonl, a line for each (add a line with a "template"
to have a "text" or "error" beside it), the files of their own with conversations of tools, reasoning and parts, into rich.jsonl, and
random values, written in every way, into values.jsonl. The cases go to a temporary folder, which a test of the crate reads; nothing of a template is kept. `--only NAME` takes some of them,
`--cases FOLDER` writes the cases there and leaves running the test to you.
"""

import argparse
import datetime
import json
import os
import random
import re
import subprocess
import tempfile
from pathlib import Path

import trl
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

DATE = "2026-11-23"
# What looks like a special token in a template's source.
TOKEN = re.compile(r"<\|[^|<>'\"\s]+\|>|<｜[^｜<>'\"\s]+｜>|</?[a-z_]+>|\[/?[A-Z_]+\]")
# Where words end, for models that converse: line ends stand together, before what follows them.
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BOS = ["<|begin_of_text|>", "<bos>", "<|startoftext|>", "<｜begin▁of▁sentence｜>", "<BOS_TOKEN>"]
EOS = ["<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<turn|>", "<|return|>", "<|end|>", "<｜end▁of▁sentence｜>", "<|endoftext|>", "<|END_OF_TURN_TOKEN|>"]


class Midnight(datetime.datetime):
    """A clock that stands still, because a template may write today's date."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromisoformat(DATE)


def conversations():
    """Conversations by name."""
    user = lambda text: {"role": "user", "content": text}
    assistant = lambda text: {"role": "assistant", "content": text}
    system = lambda text: {"role": "system", "content": text}
    texts = {
        "plain": "What is 2 + 2?",
        "empty": "",
        "space": " ",
        "newline": "\n",
        "leading and trailing spaces": "  two in front, three behind   ",
        "consecutive white space": "a  b   c\t\td \n\n\n e",
        "newlines": "one\ntwo\n\nthree\n",
        "carriage returns": "one\r\ntwo\rthree",
        "python's white space": "\x1c\x1d odd \x85\u2003separators\u3000\x1f",
        "unicode": "Grüße, 世界! Ünïcödé ﬁ ß İ",
        "emoji": "👩‍👩‍👧‍👦 🇩🇪 🤷🏽‍♀️",
        "combining": "e\u0301 vs é, \u200b\u200d\ufeff",
        "code": "```python\ndef f(x):\n    return {'a': [1, 2], \"b\": x}\n```",
        "jinja expression": "{{ x }} and {{ messages[0] }}",
        "jinja blocks": "{% raw %}{% for x in y %}{{ x }}{% endfor %}{% endraw %}",
        "jinja comment": "{# not a comment #} {% generation %} {% endgeneration %}",
        "braces": "{} { } }} {{ %} {%",
        "quotes and backslashes": "'single' \"double\" \\n \\\\ \\u0041 `tick`",
        "html": "<b>bold</b> &amp; <script>alert('x')</script>",
        "percent": "100% %s %d {0} {x}",
        "special tokens": "<s></s><|im_start|>user\n<|eot_id|><bos>[INST]<|end|>",
        "think": "<think>hm</think>yes",
        "json": '{"name": "f", "arguments": {"x": [1, 2.0, null, true]}}',
        "control characters": "a\x00b\x07c\x7fd",
        "long": "All work and no play. " * 500,
        "number": "42",
        "word none": "None",
    }
    made = {f"user: {name}": [user(text)] for name, text in texts.items()}
    made |= {f"assistant last: {name}": [user("Q"), assistant(text)] for name, text in texts.items()}
    made |= {f"system: {name}": [system(text), user("Q")] for name, text in texts.items()}
    made |= {
        "three turns": [user("a"), assistant("b"), user("c"), assistant("d"), user("e")],
        "three turns, system": [system("s"), user("a"), assistant("b"), user("c"), assistant("d"), user("e")],
        "earlier thoughts": [user("a"), assistant("<think>\nlong\n</think>\n\nb"), user("c")],
        "thoughts last": [user("a"), assistant("<think>\nlong\n</think>\n\nb")],
        "thoughts not closed": [user("a"), assistant("<think>\nlong"), user("c")],
        "assistant first": [assistant("a"), user("b")],
        "only a system message": [system("s")],
        "only an assistant": [assistant("a")],
        "system message in the middle": [user("a"), system("s"), user("b")],
        "two system messages": [system("s"), system("t"), user("b")],
        "two users in a row": [user("a"), user("b")],
        "two assistants in a row": [user("a"), assistant("b"), assistant("c")],
        "developer": [{"role": "developer", "content": "d"}, user("a")],
        "tool result": [user("a"), assistant("b"), {"role": "tool", "content": "c"}, user("d")],
        "unknown role": [{"role": "dog", "content": "woof"}],
        "role of many words": [{"role": "user ", "content": "a"}],
        "empty assistant": [user("a"), assistant(""), user("b")],
        "tool response as user": [user("<tool_response>\nx\n</tool_response>"), assistant("y"), user("z")],
        "system with a switch": [system("/no_think be short"), user("hi /no_think")],
    }
    return made


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city, in °C; \"now\" only.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "A city"}, "days": {"type": "integer", "default": 1}, "exact": {"type": "boolean"}},
            "required": ["city"],
        },
    },
}
SUM = {"type": "function", "function": {"parameters": {"type": "object", "properties": {"numbers": {"type": "array", "items": {"type": "number"}}}}, "name": "sum"}}


def rich_conversations():
    """Conversations with more than roles and texts, and the template's variables, by name."""
    user = lambda text, **more: {"role": "user", "content": text, **more}
    assistant = lambda text, **more: {"role": "assistant", "content": text, **more}
    call = lambda name, arguments, **more: {"type": "function", "function": {"name": name, "arguments": arguments}, **more}
    parts = lambda *texts: [{"type": "text", "text": text} for text in texts]
    weather = call("get_weather", {"city": "Zürich", "days": 2, "exact": True, "after": None, "at": [1.5, 1000000.0, -3]}, id="c1")
    asked = [user("Weather?"), assistant(None, tool_calls=[weather]), {"role": "tool", "content": '{"c": 21.5}', "name": "get_weather", "tool_call_id": "c1"}]
    answered = asked + [assistant("21.5 degrees.", reasoning_content="It said 21.5.")]
    return {
        "a tool call": (asked[:2], {"tools": [WEATHER]}),
        "a tool's answer": (asked, {"tools": [WEATHER, SUM]}),
        "tools, and the answer to theirs": (answered, {"tools": [WEATHER]}),
        "tools, none used": ([{"role": "system", "content": "Be short."}, user("Hi"), assistant("Hello")], {"tools": [SUM]}),
        "no tools in the list": ([user("Hi")], {"tools": []}),
        "a call whose arguments are text": ([user("q"), assistant("", tool_calls=[call("sum", '{"numbers": [1, 2]}')])], {"tools": [SUM]}),
        "a call without a content": ([user("q"), {"role": "assistant", "tool_calls": [call("sum", {"numbers": []})]}], {}),
        "two calls": ([user("q"), assistant("Both:", tool_calls=[call("sum", {"numbers": [1]}), weather])], {"tools": [WEATHER, SUM]}),
        "reasoning, last": ([user("q"), assistant("a", reasoning_content="\nLet me see.\n")], {}),
        "reasoning, earlier": ([user("q"), assistant("a", reasoning_content="hm"), user("r"), assistant("b", reasoning_content="so")], {}),
        "reasoning, as thinking": ([user("q"), assistant("a", thinking="hm")], {}),
        "no thinking": ([user("q")], {"enable_thinking": False}),
        "no thinking, answered": ([user("q"), assistant("a")], {"enable_thinking": False}),
        "thinking": ([user("q")], {"enable_thinking": True}),
        "other variables": ([user("q")], {"words": ["a", "b"], "xml_tools": [WEATHER], "python_tools": [{"name": "f", "x": "it's"}], "custom_tools": [SUM]}),
        "parts": ([user(parts(" What is ", "this? ")), assistant("a")], {}),
        "parts, all": ([{"role": "system", "content": parts("Be short.")}, user(parts("q")), assistant(parts("a", "", "b"))], {}),
        "parts of a tool's answer": (asked[:2] + [asked[2] | {"content": parts("21.5")}], {"tools": [WEATHER]}),
        "names, and fields of nobody": ([user("q", name="Ann", timestamp=3), assistant("a", citations=[{"url": "x"}])], {}),
        "content first": ([{"content": "q", "name": "n", "role": "user"}], {}),
        "weights": ([user("q"), assistant("a", weight=0), user("r"), assistant("b", weight=1, train=True)], {}),
    }


def expected(render, messages):
    """What a template writes; texts of parts are joined for a template that does not go through parts."""
    if not any(isinstance(message.get("content"), list) for message in messages):
        return render(messages)
    one = lambda content: [message | ({"content": content} if isinstance(message.get("content"), list) else {}) for message in messages]
    joined = [message | ({"content": "".join(part["text"] for part in message["content"])} if isinstance(message.get("content"), list) else {}) for message in messages]
    try:
        goes_through = render(one([{"type": "text", "text": "x"}])) == render(one("x"))
    except Exception:  # whatever a template does wrong
        goes_through = False
    return render(messages if goes_through else joined)


def tokenizer_for(source):
    """A byte-level tokenizer with a few merges and the template's special tokens."""
    pieces = list(dict.fromkeys(TOKEN.findall(source)))
    pick = lambda candidates, default: next((token for token in candidates if token in source), default)
    bos, eos = pick(BOS, "<s>"), pick(EOS, "</s>")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("a", "n"), ("an", "d"), ("Ġ", "a"), ("Ċ", "Ċ"), ("Ġ", "Ġ"), ("u", "s"), ("us", "e")]
    words = alphabet + [left + right for left, right in merges]
    tokenizer = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=merges))
    split = pre_tokenizers.Split(Regex(WORD), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=eos,
        unk_token="<unk>",
        extra_special_tokens=[token for token in pieces if token not in (bos, eos, "<unk>")],
        chat_template=source,
    )


def model_config(tokenizer):
    """The smallest Llama that has this vocabulary."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": 4,
        "intermediate_size": 4,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "max_position_embeddings": 65536,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def trained_ids(tokenizer, messages):
    """The last message's tokens that TRL trains on, which the template writes in a generation block, up to the end of the turn.

    Nothing where the response has letters of several bytes, whose tokens transformers cannot tell apart, or an end token of its own.
    """
    content = messages[-1]["content"]
    if not content.isascii() or tokenizer.eos_token in content:
        return None
    whole = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    marked = [at for at, mark in enumerate(whole["assistant_masks"]) if mark]
    first = next((at for at in reversed(marked) if at - 1 not in marked), 0)
    ids = [whole["input_ids"][at] for at in marked if at >= first]
    return ids[: ids.index(tokenizer.eos_token_id) + 1] if tokenizer.eos_token_id in ids else ids


def write_cases(folder, templates):
    """Writes a model folder for each template and all cases; gives the file of cases."""
    chat_template_utils.datetime = Midnight
    path = folder / "cases.jsonl"
    every = {name: (messages, {}) for name, messages in conversations().items()} | rich_conversations()
    counts = {"templates": 0, "conversations": len(every), "cases": 0, "raised": 0}
    with open(path, "w", encoding="utf-8") as out:
        for template in templates:
            source = template.read_text(encoding="utf-8")
            blocks = set(re.findall(r"\{%-?\s*(\w+)", source))
            tokenizer = tokenizer_for(source)
            model = folder / template.stem
            tokenizer.save_pretrained(model)
            (model / "config.json").write_text(json.dumps(model_config(tokenizer)))
            counts["templates"] += 1
            for name, (messages, variables) in every.items():
                for prompt in (False, True):
                    case = {"folder": str(model), "name": f"{template.name}, {name}", "date": DATE, "messages": messages}
                    case |= {"variables": variables, "add_generation_prompt": prompt}
                    try:
                        options = variables | {"add_generation_prompt": prompt}
                        case["text"] = expected(lambda messages: tokenizer.apply_chat_template(messages, tokenize=False, **options), messages)
                        ids = expected(lambda messages: tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options), messages)
                        case["token_ids"] = ids
                        if not variables and name in conversations() and not prompt and len(messages) > 1 and messages[-1]["role"] == "assistant" and "generation" in blocks:
                            case["trained_ids"] = trained_ids(tokenizer, messages)
                    except Exception as error:  # whatever a template does wrong
                        case["error"] = f"{type(error).__name__}: {error}"
                        counts["raised"] += 1
                    counts["cases"] += 1
                    out.write(json.dumps(case) + "\n")
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    return path


# Every way from a value to text that is not `tojson`, by the name `x`.
WAYS = (
    "{{ x }}\n{{ x ~ '' }}\n{{ 'a' ~ x ~ [x] ~ -1 }}\n{{ x | string }}\n{{ [x, [x]] }}\n{{ (x,) }}{{ (x, 1) }}\n"
    "{{ {'k': x, 1: x, none: [x], false: {}, 1.5: ()} }}\n{{ '%s' | format(x) }}{{ '{} {y}'.format(x, y=x) }}\n{{ [x, x] | join(', ') }}\n"
    "{% set y = x ~ 'b' if x else 'c' ~ x %}{{ y }}{{ x | trim }}{{ x | upper }}{{ {'z': x} | replace('a', 'b') }}\n{{ {'z': 'q' ~ x}.z ~ (x ~ x) ~ 1e-7 }}"
)


def random_value(rng, depth=0):
    """A value of JSON whose text is Python's own affair."""
    letters = "ab'\"\\\n\r\t \x00\x1b\x7f\x85\xa0\xadéß\u0301\u200b\u200d\u2028\u3000\ufeff\ue000\u0378世🎉👩\U000e0041\U0010ffff%{}<&>"
    text = lambda: "".join(rng.choice(letters) for _ in range(rng.choice([0, 1, 2, 5, 9])))
    kind = rng.randrange(6 if depth > 3 else 9)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.choice([0, -1, 7, 2**31, -(2**53), 2**63 - 1, -(2**63), 2**64 - 1])
    if kind == 2:
        return rng.choice([0.0, -0.0, 1.0, 1e15, 9999999999999998.0, 1e16, 1e20, -1e22, 1e100, 0.1, 1e-4, 9.9e-5, 1e-5, -1.5e-7, 5e-324, 1.7976931348623157e308])
    if kind == 3:
        return rng.uniform(-1, 1) * 10.0 ** rng.randint(-25, 25)
    if kind in (4, 5):
        return text()
    if kind == 6:
        return [random_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {text(): random_value(rng, depth + 1) for _ in range(rng.randrange(4))}


def write_values(path):
    """Writes random values, and their texts by every way."""
    rng, lines = random.Random(17), []
    for _ in range(400):
        value = random_value(rng)
        (text,), _ = chat_template_utils.render_jinja_template([[]], chat_template=WAYS, x=value)
        lines.append(json.dumps({"value": value, "text": text}))
    path.write_text(json.dumps({"template": WAYS}) + "\n" + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} values")


def write_golden():
    """Fills in what transformers makes of our own templates."""
    chat_template_utils.datetime = Midnight
    path = Path(__file__).parents[1] / "chat_templates" / "constructs.jsonl"
    messages = [{"role": "user", "content": " Hi there "}, {"role": "assistant", "content": "it's"}]
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        case = {"template": json.loads(line)["template"]}
        try:
            (case["text"],), _ = chat_template_utils.render_jinja_template([messages], chat_template=case["template"], **tokens)
        except Exception as error:  # whatever a template does wrong
            case["error"] = f"{type(error).__name__}: {error}"
        lines.append(json.dumps(case))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} templates, {sum('error' in line for line in lines)} raised")
    write_values(path.parent / "values.jsonl")
    lines, raised = [], 0
    templates = {template.name: template.read_text(encoding="utf-8") for template in sorted(path.parent.glob("*.jinja"))}
    for name, (messages, variables) in rich_conversations().items():
        case = {"name": name, "messages": messages, "variables": variables, "written": {}}
        for template, source in templates.items():

            def render(messages, prompt):
                # As `apply_chat_template` does before it.
                messages = [{key: value for key, value in message.items() if value is not None} for message in messages]
                variables = {"tools": None, "documents": None} | tokens | case["variables"]
                (text,), _ = chat_template_utils.render_jinja_template([messages], chat_template=source, add_generation_prompt=prompt, **variables)
                return text

            try:
                case["written"][template] = [expected(lambda messages: render(messages, prompt), messages) for prompt in (False, True)]
            except Exception:  # whatever a template does wrong
                case["written"][template] = None
                raised += 1
        lines.append(json.dumps(case))
    (path.parent / "rich.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} rich conversations, {len(templates)} templates, {raised} raised")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="templates whose name holds this")
    parser.add_argument("--cases", type=Path, help="write the cases here and do not run the test")
    parser.add_argument("--golden", action="store_true", help="render our own templates anew")
    arguments = parser.parse_args()
    if arguments.golden:
        write_golden()
        return
    shipped = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    templates = [template for template in shipped if arguments.only in template.name]
    if arguments.cases:
        arguments.cases.mkdir(parents=True, exist_ok=True)
        print(write_cases(arguments.cases, templates))
        return
    with tempfile.TemporaryDirectory() as folder:
        cases = write_cases(Path(folder), templates)
        command = ["cargo", "test", "--release", "--test", "it", "--", "published_chat_templates", "--nocapture"]
        raise SystemExit(subprocess.run(command, env=os.environ | {"OPTUNE_TEMPLATE_CASES": str(cases)}).returncode)


if __name__ == "__main__":
    main()
