// A message in events, and by the helper that gathers it.
import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';

const client = new Anthropic();
const model = process.env.MODEL ?? 'claude-haiku-4-5';

const kinds = [];
const events = await client.messages.create({
  max_tokens: 100,
  stream: true,
  messages: [{ role: 'user', content: 'Hello, Claude' }],
  model,
});
for await (const event of events) kinds.push(event.type);
assert.deepEqual(kinds.slice(0, 2), ['message_start', 'content_block_start']);
assert.deepEqual(kinds.slice(-3), ['content_block_stop', 'message_delta', 'message_stop']);

let text = '';
const stream = client.messages
  .stream({ max_tokens: 100, messages: [{ role: 'user', content: 'Say hello there!' }], model })
  .on('text', (delta) => {
    text += delta;
  });
const message = await stream.finalMessage();
assert.equal(message.content[0].text, text);
assert.ok(message.usage.output_tokens > 0);
