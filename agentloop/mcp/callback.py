from mcp_types import *

from agentloop.errors import *


def sampling_callback(provider):
    async def cb(context, params):
        try:
            r = await provider.sample(params)
        except DeniedError as e:
            return ErrorData(code=-1, message=str(e))
        except ProviderError as e:
            return ErrorData(code=-32603, message=f"{e.code}: {e}")
        if not params.tools and not params.tool_choice:
            c = r.content if not isinstance(r.content, list) else r.content[0]
            return CreateMessageResult(
                role=r.role, content=c, model=r.model, stop_reason=r.stop_reason, _meta=r.meta
            )
        return r

    return cb
