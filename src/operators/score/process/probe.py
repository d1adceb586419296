"""Says what a reward function's fingerprint and checks need, without importing it.

Started by optune as `python -c PROBE SETTINGS`. Writes one line of JSON:
version: the Python; problem: why there is no such module, or null; names: the names of the module's
top level, or null where only an import tells; module: the version of an installed module, or the
hash of another one's file, or null.
"""

import ast
import hashlib
import importlib.util
import json
import os
import platform
import sys


def top_level(body, names):
    """Adds the names that statements bind; false if a statement may bind any."""
    known = True
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                known = known and alias.name != "*"
                names.add((alias.asname or alias.name).split(".")[0])
        else:
            for child in ast.walk(node):
                if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                    names.add(child.id)
            for field in ("body", "orelse", "finalbody"):
                inner = getattr(node, field, [])
                known = top_level(inner if isinstance(inner, list) else [], names) and known
            for handler in getattr(node, "handlers", []):
                known = top_level(handler.body, names) and known
    return known and "__getattr__" not in names


def names_in(path):
    """The names of a file's top level, or null; and the file's fault, or null."""
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read(), path)
    except SyntaxError as error:
        return None, "line %s: %s" % (error.lineno, error.msg)
    except (OSError, ValueError) as error:
        return None, str(error)
    names = set()
    return (sorted(names) if top_level(tree.body, names) else None), None


def version_of(module, path):
    """The distribution of a module with its version, else the hash of its file."""
    from importlib import metadata

    top = module.split(".")[0]
    candidates = [top, top.replace("_", "-")]
    if hasattr(metadata, "packages_distributions"):
        candidates = metadata.packages_distributions().get(top, []) + candidates
    for name in candidates:
        try:
            return "%s %s" % (name, metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
    if path and os.path.isfile(path):
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    return None


def main():
    settings = json.loads(sys.argv[1])
    said = {"version": "%s %s" % (platform.python_implementation(), platform.python_version())}
    said.update(problem=None, names=None, module=None)
    module = settings["module"]
    if sys.version_info < (3, 8):
        said["problem"] = "expected Python 3.8 or later, found %s" % said["version"]
    elif settings["is_file"]:
        said["names"], said["problem"] = names_in(module)
    else:
        try:
            spec = importlib.util.find_spec(module)
        except Exception as error:
            spec = None
            said["problem"] = "%s: %s" % (type(error).__name__, error)
        if spec is not None:
            said["module"] = version_of(module, spec.origin)
            if spec.origin and spec.origin.endswith(".py"):
                said["names"], said["problem"] = names_in(spec.origin)
        elif said["problem"] is None:
            said["problem"] = "expected a module %s, found none" % module
    sys.stdout.write(json.dumps(said) + "\n")


main()
