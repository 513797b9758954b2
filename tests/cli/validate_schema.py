"""The part of JSON Schema that man/schema uses. Knows what it does not know: any other keyword is
an error, so a schema cannot ask for something that is silently not checked. And stricter in one
point: where a schema names properties, others are refused unless it has additionalProperties. To
users the schemas promise that fields may be added; to us, that each field is in them."""
import json
import re

KNOWN = {"$schema", "$id", "$defs", "$ref", "title", "description", "type", "const", "enum",
         "properties", "required", "additionalProperties", "items", "minItems", "pattern",
         "minimum", "maximum", "anyOf"}

TYPES = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
}


def _follow(schema, root):
    while "$ref" in schema:
        at = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            at = at[part]
        schema = at
    return schema


def faults(value, schema, root=None, where="$"):
    """What is wrong with `value`, as a list of lines."""
    root = schema if root is None else root
    if isinstance(schema, bool):
        return [] if schema else [f"{where}: not allowed"]
    schema = _follow(schema, root)
    unknown = set(schema) - KNOWN
    if unknown:
        raise ValueError(f"keyword not understood: {sorted(unknown)}")
    out = []
    wanted = schema.get("type", [])
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if wanted and not any(TYPES[t](value) for t in wanted):
        return [f"{where}: {json.dumps(value)[:60]} is no {' or '.join(wanted)}"]
    if "const" in schema and value != schema["const"]:
        out.append(f"{where}: {value!r} is not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        out.append(f"{where}: {value!r} is none of {schema['enum']}")
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        out.append(f"{where}: {value!r} does not match {schema['pattern']}")
    if TYPES["number"](value):
        if value < schema.get("minimum", value):
            out.append(f"{where}: {value} is less than {schema['minimum']}")
        if value > schema.get("maximum", value):
            out.append(f"{where}: {value} is more than {schema['maximum']}")
    if "anyOf" in schema:
        tries = [faults(value, s, root, where) for s in schema["anyOf"]]
        if all(tries):
            out.append(f"{where}: fits none: " + " | ".join(t[0] for t in tries))
    if isinstance(value, dict):
        out += _object_faults(value, schema, root, where)
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            out.append(f"{where}: {len(value)} items are too few")
        for i, item in enumerate(value):
            out += faults(item, schema.get("items", True), root, f"{where}[{i}]")
    return out


def _object_faults(value, schema, root, where):
    out = [f"{where}: no '{k}'" for k in schema.get("required", []) if k not in value]
    known = schema.get("properties", {})
    for key, item in value.items():
        rule = known[key] if key in known else schema.get("additionalProperties", not known)
        out += faults(item, rule, root, f"{where}.{key}")
    return out


def self_test():
    schema = {"type": "object", "required": ["a"],
              "properties": {"a": {"type": "integer", "minimum": 1},
                             "b": {"type": "array", "items": {"$ref": "#/$defs/word"}}},
              "$defs": {"word": {"anyOf": [{"const": None}, {"pattern": "^[a-z]+$"}]}}}
    assert faults({"a": 1, "b": ["x", None]}, schema) == []
    for bad in ([], {}, {"a": 0}, {"a": True}, {"a": 1.5}, {"a": 1, "c": 1}, {"a": 1, "b": ["X"]}):
        assert faults(bad, schema), bad
    try:
        faults(1, {"multipleOf": 2})
    except ValueError:
        return
    raise AssertionError("an unknown keyword passed")
