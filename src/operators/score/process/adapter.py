"""Runs a reward function with TRL's signature: rows in, rewards out, as lines of JSON.

Started by optune as `python -c ADAPTER SETTINGS`. Needs Python 3.8 and nothing beside its own
library. Standard output is for answers only; prints of the function go to standard error.
"""

import asyncio
import importlib
import importlib.util
import inspect
import json
import math
import numbers
import os
import sys
import traceback


class Wrong(Exception):
    """A fault of the function: its message ends the node."""


def load(settings):
    """The function of the settings: of a file or of a module, made by a first call if there are arguments."""
    module = settings["module"]
    if settings["is_file"]:
        # As `python FILE` does: modules beside the file can be imported.
        sys.path.insert(0, os.path.dirname(module))
        name = os.path.splitext(os.path.basename(module))[0]
        spec = importlib.util.spec_from_file_location(name, module)
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[name] = loaded
        spec.loader.exec_module(loaded)
    else:
        loaded = importlib.import_module(module)
    function = loaded
    for word in settings["function"].split("."):
        if not hasattr(function, word):
            raise Wrong("expected %s in %s, found no such name" % (settings["function"], module))
        function = getattr(function, word)
    if not callable(function):
        raise Wrong("expected %s of %s to be a function, found %s" % (settings["function"], module, kind(function)))
    if settings["arguments"] is not None:
        function = function(**settings["arguments"])
        if not callable(function):
            raise Wrong("expected %s to make a function from its arguments, found %s" % (settings["function"], kind(function)))
    return function


def kind(value):
    return "None" if value is None else "%s %.80r" % (type(value).__name__, value)


class Logs:
    """TRL's `log_extra` and `log_metric`: numbers of each response become components, other values are for TRL's displays."""

    def __init__(self, count):
        self.components = [{} for _ in range(count)]

    def log_extra(self, column, values):
        values = list(values)
        if len(values) != len(self.components):
            return
        for components, value in zip(self.components, values):
            if isinstance(value, numbers.Real) and math.isfinite(value):
                components[str(column)] = float(value)

    def log_metric(self, name, value):
        pass


def call(function, rows):
    """The rewards of the rows, numbers or None, and their components. Passes what TRL's trainers pass."""
    logs = Logs(len(rows))
    names = []
    for row in rows:
        names.extend(name for name in row["columns"] if name not in names)
    columns = {name: [row["columns"].get(name) for row in rows] for name in names}
    prompts, completions = [], []
    for row in rows:
        if "messages" in row:
            prompts.append(row["messages"])
            completions.append([{"role": "assistant", "content": row["text"]}])
        else:
            prompts.append(row["prompt"])
            completions.append(row["text"])
    columns.update(
        prompts=prompts,
        completions=completions,
        completion_ids=[row["token_ids"] for row in rows],
        trainer_state=None,
        log_extra=logs.log_extra,
        log_metric=logs.log_metric,
    )
    rewards = function(**columns)
    if inspect.isawaitable(rewards):
        rewards = LOOP.run_until_complete(rewards)
    if rewards is None or isinstance(rewards, (str, bytes, dict)) or not hasattr(rewards, "__iter__"):
        raise Wrong("expected a list of %d rewards, found %s" % (len(rows), kind(rewards)))
    rewards = list(rewards)
    if len(rewards) != len(rows):
        raise Wrong("expected %d rewards, one for each completion, found %d" % (len(rows), len(rewards)))
    return [number(reward, index, len(rows)) for index, reward in enumerate(rewards)], logs.components


def number(reward, index, count):
    """A reward as a float or None: numbers and tensors of one number."""
    if reward is None:
        return None
    if not isinstance(reward, (str, bytes, bytearray, complex)) and hasattr(reward, "__float__"):
        try:
            return float(reward)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            pass
    raise Wrong("expected a number or None as reward %d of %d, found %s" % (index, count, kind(reward)))


def answer(row, reward, components):
    line = {"id": row["id"], "reward": reward}
    if reward is not None and not math.isfinite(reward):
        line["reward"] = "NaN" if math.isnan(reward) else "Infinity" if reward > 0 else "-Infinity"
    if components:
        line["components"] = components
    return line


def last_place(error):
    """The line of an error's last place in a file, for messages."""
    places = [place for place in traceback.extract_tb(error.__traceback__) if place.filename != "<string>"]
    return " (%s, line %d)" % (os.path.basename(places[-1].filename), places[-1].lineno) if places else ""


class Scorer:
    """Calls the function on batches, and on single responses where it fails on a batch."""

    def __init__(self, function):
        self.function = function
        self.works = False

    def called(self, rows):
        rewards, components = call(self.function, rows)
        self.works = True
        return [answer(*row) for row in zip(rows, rewards, components)]

    def score(self, rows):
        """One answer for each row. Raises if the function has never worked: its fault, and not that of a response."""
        try:
            return self.called(rows)
        except Wrong:
            raise
        except Exception as error:
            first = error
        if len(rows) == 1 and not self.works:
            raise first
        answers = []
        for row in rows:
            try:
                answers += self.called([row])
            except Wrong:
                raise
            except Exception as error:
                traceback.print_exc()
                text = "%s: %s%s" % (type(error).__name__, error, last_place(error))
                answers.append({"id": row["id"], "error": encodable(text)})
        if not self.works:
            raise first
        return answers


def encodable(text):
    """The text without halves of surrogate pairs: no JSON has them."""
    return text.encode("utf-8", "replace").decode("utf-8")


def main():
    settings = json.loads(sys.argv[1])
    sys.argv = [settings["module"]]
    # Nobody else may write between the answers or read the rows, not even programs that the function starts.
    output = os.fdopen(os.dup(1), "wb")
    rows_in = os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout = sys.stderr

    def say(*lines):
        for line in lines:
            output.write(json.dumps(line, allow_nan=False).encode("ascii") + b"\n")
        output.flush()

    def fatal(text):
        say({"fatal": encodable(text)})
        sys.stderr.flush()
        os._exit(1)

    try:
        function = load(settings)
    except Wrong as wrong:
        fatal(str(wrong))
    except BaseException as error:
        traceback.print_exc()
        fatal("cannot load the function: %s: %s%s" % (type(error).__name__, error, last_place(error)))
    scorer = Scorer(function)
    batch = []
    for line in rows_in:
        row = json.loads(line)
        batch.append(row)
        if row["more"] > 0:
            continue
        rows, batch = batch, []
        try:
            say(*scorer.score(rows))
        except Wrong as wrong:
            fatal(str(wrong))


LOOP = asyncio.new_event_loop()
main()
