// A response in the background, polled until it has ended, and one that is cancelled.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const client = new OpenAI();
const model = process.env.MODEL ?? 'gpt-4o-mini';

let response = await client.responses.create({ model, input: 'Write a poem.', background: true });
while (['queued', 'in_progress'].includes(response.status)) {
  await new Promise((resolve) => setTimeout(resolve, 200));
  response = await client.responses.retrieve(response.id);
}
assert.equal(response.status, 'completed');
assert.ok(response.output_text.length > 0);

const other = await client.responses.create({ model, input: 'Write a book.', background: true });
const ended = await client.responses.cancel(other.id);
assert.ok(['cancelled', 'completed'].includes(ended.status));
