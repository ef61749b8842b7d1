"""The schema that a request asks for, wherever it stands, and the simplest instance of any schema."""

from __future__ import annotations

import json
from typing import cast

from pipelines.calls import Json


def text_of(body: Json) -> str:
    """All that is said in a request, one message after the other."""
    return "\n".join(_content(message.get("content")) for message in body.get("messages", ()))


def _content(content: Json) -> str:
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content if part.get("type") == "text")
    return content if isinstance(content, str) else ""


def schema_of(body: Json, text: str) -> Json | None:
    """The JSON schema of a request: in its response format, or in words after "JSON schema"."""
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        return form["json_schema"].get("schema")
    start = text.find("{", text.rfind("JSON schema")) if "JSON schema" in text else -1
    if start < 0:
        return None
    try:
        return json.JSONDecoder().raw_decode(text, start)[0]
    except ValueError:
        return None


def items_of(schema: Json, name: str) -> Json | None:
    """The schema of the items of the array property `name`, or None where there is none."""
    field = schema.get("properties", {}).get(name) if isinstance(schema, dict) else None
    if not isinstance(field, dict) or field.get("type") != "array":
        return None
    return followed(field.get("items", {}), schema)


def followed(schema: Json, root: Json) -> Json:
    """The schema that a $ref names, else the schema itself."""
    while "$ref" in schema:
        target = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        schema = target
    return schema


def simplest(schema: Json, root: Json | None = None) -> Json:
    """The simplest valid instance: the first choice, the shortest text, the smallest number."""
    root = schema if root is None else root
    schema = followed(schema, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return simplest(schema[choice][0], root)
    kind = schema.get("type", "object")
    return _simplest_of(kind[0] if isinstance(kind, list) else kind, schema, root)


def _simplest_of(kind: str, schema: Json, root: Json) -> Json:
    if kind == "object":
        fields = schema.get("properties", {})
        required = schema.get("required", list(fields))
        return {name: simplest(field, root) for name, field in fields.items() if name in required}
    if kind == "array":
        return [simplest(schema.get("items", {}), root) for _ in range(schema.get("minItems", 0))]
    if kind == "string":
        return "word".ljust(schema.get("minLength", 0), "s")
    if kind in ("integer", "number"):
        return cast(float, schema.get("minimum", 0))
    return False if kind == "boolean" else None
