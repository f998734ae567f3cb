"""Steers schemathesis towards what exists: half of the cases have the ids of real things in their path, so
that handlers get further than "not found". What ends a thing has one of its own to end, and what the run
itself stands on (the callers' accounts, users and keys, and the tenant that must stay untouched) is kept out
of harm's way.

The things are in a JSON file that BAILIWICK_THINGS names: `real` ids by parameter, `spare` ones by
operation, and `protected` names.
"""

import json
import os
import zlib

import schemathesis

with open(os.environ["BAILIWICK_THINGS"], encoding="utf-8") as file:
    THINGS = json.load(file)


def chosen(*words):
    """Half of all cases. By what is in them and not by chance: the same case is the same call."""
    return zlib.crc32(repr(words).encode("utf-8", "backslashreplace")) % 2 == 0


@schemathesis.hook
def before_call(context, case, kwargs):
    operation = f"{case.method} {case.operation.path}"
    spare = THINGS["spare"].get(operation)
    parameters = case.path_parameters
    if parameters:
        if chosen(operation, sorted(parameters.items(), key=str), case.query, case.body):
            for name in parameters:
                parameters[name] = THINGS["real"].get(name, parameters[name])
        if spare is not None and any(str(value) in THINGS["protected"] for value in parameters.values()):
            parameters.update(spare)
    if "/files/content" in operation and case.query and chosen(operation, case.query):
        case.query["path"] = THINGS["real"]["path"]
    if operation.endswith("/grants") and isinstance(case.body, dict) and chosen(operation, case.body):
        case.body["user"] = THINGS["real"]["user"]
    if operation.endswith("/session/{session}/stream"):
        # Without this the reply goes on for as long as the session does.
        case.query = {**(case.query or {}), "follow": "false"}
