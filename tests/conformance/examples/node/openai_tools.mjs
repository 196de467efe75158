// The library runs the tool that the model calls, and sends its result back.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const client = new OpenAI();
const asked = [];

async function get_weather({ location }) {
  asked.push(location);
  return { celsius: 14 };
}

const runner = client.chat.completions.runTools({
  model: process.env.MODEL ?? 'gpt-4o-mini',
  messages: [{ role: 'user', content: 'Call get_weather: what is the weather in Paris this week?' }],
  max_tokens: 200,
  tools: [
    {
      type: 'function',
      function: {
        function: get_weather,
        parse: JSON.parse,
        name: 'get_weather',
        description: 'Get the weather at a location.',
        parameters: { type: 'object', properties: { location: { type: 'string' } }, required: ['location'] },
      },
    },
  ],
});

assert.ok(await runner.finalContent());
assert.equal(asked.length, 1);
assert.equal(typeof asked[0], 'string');
