"""JSON answers."""

from pydantic_core import to_json
from starlette.responses import JSONResponse


class Json(JSONResponse):
    """Of what we have put together: written in 1.3 us instead of 7.6."""

    def render(self, content: object) -> bytes:
        return to_json(content)
