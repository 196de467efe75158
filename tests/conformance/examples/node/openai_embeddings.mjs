// Embeddings of several texts; the library asks for base64.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const client = new OpenAI();

const reply = await client.embeddings.create({
  model: 'text-embedding-3-small',
  input: ['The quick brown fox jumped over the lazy dog', 'It rained.'],
});

assert.deepEqual(reply.data.map((one) => one.index), [0, 1]);
assert.ok(reply.data[0].embedding.length > 100);
assert.equal(typeof reply.data[0].embedding[0], 'number');
assert.ok(reply.usage.total_tokens > 0);
