// Requests to a server with OpenAI's client for JavaScript; prints one JSON object.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, baseURL, model, tools, encoder] = process.argv.slice(2);
const path = createRequire(`${folder}/`).resolve("openai");
const { default: OpenAI } = await import(pathToFileURL(path).href);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Hello" }];
const asked = { model, messages, seed: 1, max_tokens: 6 };

const whole = await client.chat.completions.create(asked);
let streamed = "";
let usage = null;
for await (const chunk of await client.chat.completions.create({
  ...asked, stream: true, stream_options: { include_usage: true },
})) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
const vectors = await client.embeddings.create({ model: encoder, input: ["the cat", "a dog sat"] });
const parameters = {
  type: "object", properties: { x: { type: "integer" }, label: { enum: ["a", "b"] } },
  required: ["x", "label"], additionalProperties: false,
};
const called = await client.chat.completions.create({
  model: tools, messages, seed: 1, max_tokens: 300, tool_choice: "required", parallel_tool_calls: false,
  tools: [{ type: "function", function: { name: "plot", parameters } }],
});
const typed = await client.chat.completions.parse({
  model: tools, messages, seed: 1, max_tokens: 300,
  response_format: { type: "json_schema", json_schema: { name: "point", strict: true, schema: parameters } },
});
let error = null;
try {
  await client.chat.completions.create({ ...asked, model: "gpt-9" });
} catch (raised) {
  error = { name: raised.constructor.name, status: raised.status, param: raised.param, code: raised.code };
}
const names = [];
for await (const each of client.models.list()) names.push(each.id);
console.log(JSON.stringify({
  whole: whole.choices[0].message.content, streamed, usage, names, error,
  vectors: vectors.data.map((each) => each.embedding),
  call: called.choices[0].message.tool_calls[0].function, typed: JSON.parse(typed.choices[0].message.content),
}));
