// A response, the next turn of its conversation, and a stream.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const client = new OpenAI();
const model = process.env.MODEL ?? 'gpt-4o-mini';

const first = await client.responses.create({ model, input: 'Tell me a joke.' });
const second = await client.responses.create({
  model, previous_response_id: first.id, input: 'Explain why this is funny.',
});
assert.equal(first.status, 'completed');
assert.ok(second.output_text.length > 0);
assert.equal(second.previous_response_id, first.id);

const stream = await client.responses.create({ model, input: 'Say hello.', stream: true });
let text = '';
let last = null;
for await (const event of stream) {
  if (event.type === 'response.output_text.delta') text += event.delta;
  last = event;
}
assert.equal(last.type, 'response.completed');
assert.ok(text.length > 0);
