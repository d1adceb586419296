"""Writes tests/golden/messages: tables of whole messages as Hugging Face datasets stores them, with the messages that TRL makes of them, and
the prompts that TRL extracts of pairs of texts.

    python tests/python/messages.py            # from the repository's root; needs datasets and trl
"""

import json
from pathlib import Path

from datasets import Dataset, Features, Json, List, Value
from trl import extract_prompt
from trl.trainer.utils import remove_none_values

FOLDER = Path(__file__).parents[1] / "golden" / "messages"

CALL = {"type": "function", "id": "c1", "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}
ROWS = [
    {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "21.5", "name": "weather", "tool_call_id": "c1"},
            {"role": "assistant", "content": "21.5 degrees.", "reasoning_content": "It said so."},
        ],
        "tools": [TOOL],
        "chat_template_kwargs": {"enable_thinking": False},
    },
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "tools": None, "chat_template_kwargs": None},
]

PAIRS = [
    ("\n\nHuman: Hi\n\nAssistant: Hello", "\n\nHuman: Hi\n\nAssistant: Go away"),
    ("\n\nHuman: Hi\n\nAssistant: I can", "\n\nHuman: Hi\n\nAssistant: I can not"),
    ("q: yes", "q: yesterday"),
    ("q: 世界 a", "q: 世界 b"),
    ("q  a", "q  b"),
    ("ab", "ac"),
    ("same", "same"),
]


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    tables = {"structs": Dataset.from_list(ROWS)}
    features = Features({"messages": List(Json()), "tools": Json(), "chat_template_kwargs": Json()})
    tables["json"] = Dataset.from_list(ROWS, features=features)
    whole = Features({"messages": Json(), "tools": Json(), "chat_template_kwargs": Json()})
    tables["json_rows"] = Dataset.from_list(ROWS, features=whole)
    texts = [{name: json.dumps(value) for name, value in row.items()} for row in ROWS]
    tables["texts"] = Dataset.from_list(texts, features=Features({name: Value("string") for name in ROWS[0]}))
    for name, table in tables.items():
        table.to_parquet(FOLDER / f"{name}.parquet")
    # What TRL trains on is the same of all four.
    expected = remove_none_values(ROWS)
    (FOLDER / "rows.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
    trl = [remove_none_values(tables["structs"][index])["messages"] for index in range(len(ROWS))]
    assert trl == [row["messages"] for row in expected]
    pairs = [{"chosen": chosen, "rejected": rejected} for chosen, rejected in PAIRS]
    extracted = [{"of": pair, "is": extract_prompt(pair)} for pair in pairs]
    (FOLDER / "pairs.json").write_text(json.dumps(extracted, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
