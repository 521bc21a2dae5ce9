"""JSON Schemas from types and models: nothing that the code knows is written down a second time."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from service.api.bots import AllowedBody, BotBody, BotPatch
from service.api.description import answers
from service.api.description.examples import BODY_EXAMPLES, EXAMPLES
from service.api.endpoints import ReplayBody
from service.api.keys import KeyBody
from service.api.usage import BudgetBody
from service.domain.endpoints import is_pattern
from service.domain.events import EventType
from service.domain.follow_ups import KIND as FOLLOW_UP
from service.domain.follow_ups import LARGEST_TEMPLATE, subscription
from service.domain.task_types import TASK_TYPES
from service.submits import DEEPEST_METADATA, LARGEST_METADATA, FollowUpBody, SubmitBody, TemplateBody
from service.subscriptions import EndpointBody, EndpointPatch

COMPONENT: Final = "#/components/schemas/{model}"
DEFAULT_KIND: Final[str] = EndpointBody.model_fields["kind"].default
EVENT_PATTERNS: Final = [
    pattern
    for pattern in ("*", *dict.fromkeys(type.split(".")[0] + ".*" for type in EventType), *EventType)
    if is_pattern(pattern)
]


class _Generator(GenerateJsonSchema):
    """Without titles that repeat the name, and with `null` as one more type where that is all there is to say."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the base class's signature
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        if isinstance(inner.get("type"), str) and "enum" not in inner:
            return inner | {"type": [inner["type"], "null"]}
        return {"anyOf": [inner, {"type": "null"}]}


def reference(name: str) -> dict[str, Any]:
    return {"$ref": COMPONENT.format(model=name)}


def schemas_of(shown: Iterable[Any]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """How each of these types is referred to, and the components that they need."""
    referred, definitions = TypeAdapter.json_schemas(
        [(each, "serialization", TypeAdapter(each)) for each in dict.fromkeys(shown)],
        schema_generator=_Generator,
        ref_template=COMPONENT,
    )
    components = {name: _untitled(schema) for name, schema in definitions.get("$defs", {}).items()}
    for name, example in EXAMPLES.items():
        components[name]["examples"] = [example]
    return {each: schema for (each, _), schema in referred.items()}, components


def body_schemas(configs: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """The components of what callers send.

    Args:
        configs: how each kind of endpoint is configured.
    """
    components: dict[str, Any] = {}
    for config in configs.values():
        components |= _components(config)
    for body in (KeyBody, BudgetBody, ReplayBody, EndpointPatch):
        components |= _components(body)
    components["ReplayBody"]["properties"]["since"] = answers.MOMENT | {"description": "RFC 3339"}
    components |= _endpoint_bodies(configs)
    components |= _submit_bodies()
    return _with_examples(components)


def bot_schemas(bots: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """The components of what makes and changes bots.

    Args:
        bots: how a bot on each platform is configured.
    """
    components = {**_components(AllowedBody)}
    changes: list[dict[str, Any]] = []
    for platform, config in bots.items():
        components |= _components(config)
        body = _schema(BotBody)
        body["properties"] |= {"platform": {"const": platform}, "config": reference(config.__name__)}
        body["required"] = ["platform", "config"]
        body["description"] = "A chat bot, and whom it obeys."
        components[f"BotBody.{platform}"] = body
        change = _without_defaults(_schema(config))
        change.pop("required", None)
        components[f"{config.__name__}Patch"] = change | {"description": "What is not named stays as it is."}
        changes.append(reference(f"{config.__name__}Patch"))
    patch = _without_defaults(_schema(BotPatch))
    patch["properties"]["config"] = {"anyOf": changes} if changes else {}
    patch["description"] = "What is not named stays as it is; `allow` is said whole."
    made = {"oneOf": [reference(f"BotBody.{platform}") for platform in bots]} if bots else _schema(BotBody)
    return _with_examples(components | {"BotBody": made, "BotPatch": patch})


def _with_examples(components: dict[str, Any]) -> dict[str, Any]:
    for name, example in BODY_EXAMPLES.items():
        if name in components:  # its kind of endpoint, or its platform, is described here
            components[name]["examples"] = [example]
    return components


def _endpoint_bodies(configs: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """One schema for each kind; a change names only what changes."""
    made: dict[str, Any] = {}
    changes: list[dict[str, Any]] = []
    for kind, config in configs.items():
        body = _schema(EndpointBody)
        body["properties"] |= {
            "kind": {"const": kind} | ({"default": kind} if kind == DEFAULT_KIND else {}),
            "config": reference(config.__name__),
        }
        _subscribes(body)
        body["description"] = "Where events go, and which."
        if kind == FOLLOW_UP:
            body["properties"]["types"]["default"] = list(subscription(None))
        body["required"] = [*body.get("required", []), "config", *([] if kind == DEFAULT_KIND else ["kind"])]
        made[f"EndpointBody.{kind}"] = body
        change = _without_defaults(_schema(config))
        change.pop("required", None)
        made[f"{config.__name__}Patch"] = change | {"description": "What is not named stays as it is."}
        changes.append(reference(f"{config.__name__}Patch"))
    patch = _without_defaults(_schema(EndpointPatch))
    patch["properties"]["config"] = {"anyOf": changes}
    _subscribes(patch)
    return made | {
        "EndpointBody": {"oneOf": [reference(f"EndpointBody.{kind}") for kind in configs]},
        "BoundEndpointBody": {
            "description": "An endpoint for one task's events; what follows it stands in its `follow_ups`.",
            "properties": {
                "rate_per_minute": {"type": "null", "description": "for endpoints of the account"}
            },
            "oneOf": [reference(f"EndpointBody.{kind}") for kind in configs if kind != FOLLOW_UP],
        },
        "EndpointPatch": patch,
    }


def _without_defaults(schema: dict[str, Any]) -> dict[str, Any]:
    properties = {
        name: {key: value for key, value in each.items() if key != "default"}
        for name, each in schema["properties"].items()
    }
    return schema | {"properties": properties}


def _subscribes(body: dict[str, Any]) -> None:
    body["properties"]["types"]["items"] = {"enum": EVENT_PATTERNS}


def _submit_bodies() -> dict[str, Any]:
    """One schema for each type of task, told apart by `type`."""
    made: dict[str, Any] = {}
    for name, row in TASK_TYPES.items():
        body = _schema(SubmitBody)
        model = row.input_model
        body["properties"] |= {"type": {"const": name}, "input": reference(model.__name__)}
        _submits(body)
        body["description"] = "What is not given is left to Klingel or to the provider."
        body["examples"] = [
            {"type": name, "input": example} for example in _schema(model).get("examples", [])
        ]
        made[f"SubmitBody.{name}"] = body
        made |= _components(model)
    template = _schema(TemplateBody)
    template["properties"] |= {
        "type": {"enum": list(TASK_TYPES)},
        "input": {
            "type": "object",
            "description": 'of that type, in which `{"$": "<JMESPath>"}` stands for a value over the event, and '
            "`{{ <JMESPath> }}` in a text for its text",
        },
    }
    _submits(template)
    template["description"] = "What a follow-up submits."
    follow_up = _schema(FollowUpBody)
    follow_up["description"] = "What to submit when something happens to the task, once."
    made |= {"TaskTemplate": template, "FollowUpBody": follow_up}
    mapping = {name: COMPONENT.format(model=f"SubmitBody.{name}") for name in TASK_TYPES}
    made["SubmitBody"] = {
        "oneOf": [reference(f"SubmitBody.{name}") for name in TASK_TYPES],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }
    return made


def _submits(body: dict[str, Any]) -> None:
    body["properties"]["metadata"]["description"] = (
        f"at most {LARGEST_METADATA} bytes as JSON, {DEEPEST_METADATA} levels"
    )
    body["properties"]["endpoints"]["items"] = reference("BoundEndpointBody")
    body["properties"]["follow_ups"]["items"] = reference("FollowUpBody")
    body["properties"]["follow_ups"]["description"] = f"at most {LARGEST_TEMPLATE} bytes as JSON"


def _components(model: type[BaseModel]) -> dict[str, Any]:
    """The model's own schema, and those that it needs, by their names."""
    schema = model.model_json_schema(schema_generator=_Generator, ref_template=COMPONENT)
    needed: dict[str, Any] = schema.pop("$defs", {})
    if "submit" in schema.get("properties", {}):
        schema["properties"]["submit"] = reference("TaskTemplate")
    return {name: _untitled(each) for name, each in {**needed, model.__name__: schema}.items()}


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    schema: dict[str, Any] = _components(model)[model.__name__]
    return schema


def _untitled(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "title"}
