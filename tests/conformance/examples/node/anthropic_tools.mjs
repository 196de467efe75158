// A tool is used, its result is sent back, and the model answers; whole and as a stream.
import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';

const client = new Anthropic();
const model = process.env.MODEL ?? 'claude-haiku-4-5';
const question = { role: 'user', content: 'Use get_weather: what is the weather in SF?' };
const tools = [
  {
    name: 'get_weather',
    description: 'Get the weather for a specific location',
    input_schema: { type: 'object', properties: { location: { type: 'string' } }, required: ['location'] },
  },
];
const asked = { model, max_tokens: 300, messages: [question], tools, tool_choice: { type: 'any' } };

const message = await client.messages.create(asked);
assert.equal(message.stop_reason, 'tool_use');
const tool = message.content.find((block) => block.type === 'tool_use');
assert.equal(typeof tool.input.location, 'string');

const answer = await client.messages.create({
  model,
  max_tokens: 300,
  tools,
  messages: [
    question,
    { role: message.role, content: message.content },
    {
      role: 'user',
      content: [
        { type: 'tool_result', tool_use_id: tool.id, content: [{ type: 'text', text: 'The weather is 73f' }] },
      ],
    },
  ],
});
assert.equal(answer.content[0].type, 'text');

const streamed = await client.messages.stream(asked).finalMessage();
assert.deepEqual(streamed.content.find((block) => block.type === 'tool_use').input, tool.input);
