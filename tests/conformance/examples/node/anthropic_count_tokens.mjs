// How many tokens a message would have.
import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';

const client = new Anthropic();

const counted = await client.messages.countTokens({
  messages: [{ role: 'user', content: 'Hello, world' }],
  model: 'claude-haiku-4-5',
});
assert.ok(counted.input_tokens > 0 && counted.input_tokens < 50);
