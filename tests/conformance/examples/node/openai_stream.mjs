// A streamed chat completion, with usage at its end.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const client = new OpenAI();

const stream = await client.chat.completions.create({
  model: process.env.MODEL ?? 'gpt-4o-mini',
  messages: [{ role: 'user', content: 'Say "Sheep sleep deep" ten times fast!' }],
  max_tokens: 100,
  stream: true,
  stream_options: { include_usage: true },
});

let text = '';
let usage = null;
const ends = [];
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? '';
  if (chunk.choices[0]?.finish_reason) ends.push(chunk.choices[0].finish_reason);
  usage = chunk.usage ?? usage;
}

assert.ok(text.length > 0);
assert.equal(ends.length, 1);
assert.ok(usage.completion_tokens > 0);
