// Calls a tool through the TypeScript client of MCP Tasks, and prints what came of it.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import {
  createTaskSessionFromClient,
  resultFromTaskOutcome,
} from "@modelcontextprotocol/ext-tasks/client";

const [url, tool] = process.argv.slice(2);
const client = new Client(
  { name: "driver", version: "1" },
  { capabilities: { sampling: { tools: {} } } },
);
const related = [];
client.setRequestHandler("sampling/createMessage", async ({ params }) => {
  related.push(params._meta?.["io.modelcontextprotocol/related-task"]?.taskId);
  const replied = params.messages.some((message) => message.role === "assistant");
  const use = { type: "tool_use", id: "s", name: "add", input: { a: 1, b: 2 } };
  return {
    role: "assistant",
    model: "m",
    content: replied ? { type: "text", text: "It is 3." } : [use],
    stopReason: replied ? "endTurn" : "toolUse",
  };
});
await client.connect(new StreamableHTTPClientTransport(new URL(url)));
const session = createTaskSessionFromClient(client, { endpointId: "test" });
const execution = await session.callTool(tool, { prompt: "go" });
const { outcome } = await execution.settle();
const result = resultFromTaskOutcome(outcome);
console.log(JSON.stringify({ kind: execution.kind, related, result }));
process.exit(0);
