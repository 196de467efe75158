// A message, as in the README of Anthropic's library.
import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';

const client = new Anthropic();

const message = await client.messages.create({
  max_tokens: 200,
  messages: [{ role: 'user', content: 'Hello, Claude' }],
  model: process.env.MODEL ?? 'claude-haiku-4-5',
});

assert.equal(message.content[0].type, 'text');
assert.ok(message.content[0].text);
assert.ok(message.usage.output_tokens > 0);
assert.ok(message._request_id);
