// Node 18 or later, without any package: submit a job, and read its answer while it is made.
//
//     HEADGATE_URL=http://127.0.0.1:8080 node node_stories.mjs "a story about tides"
//
// If the connection breaks, it goes on behind the last piece that it has.

const base = process.env.HEADGATE_URL ?? 'http://127.0.0.1:8080';
const key = process.env.HEADGATE_KEY ?? '';
const headers = { 'content-type': 'application/json', ...(key && { authorization: `Bearer ${key}` }) };

async function submit(prompt) {
  const body = JSON.stringify({ prompt, model: 'gpt-4o-mini', stream: true });
  const reply = await fetch(`${base}/v1/jobs`, { method: 'POST', headers, body });
  const found = await reply.json();
  if (!reply.ok) throw new Error(found.error.message);
  return found.id;
}

async function* eventsIn(body) {
  let rest = '';
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    const blocks = (rest + text).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = block.split('\n').map((line) => line.match(/^(\w+): (.*)$/)).filter(Boolean);
      yield Object.fromEntries(fields.map(([, name, value]) => [name, value]));
    }
  }
}

async function* pieces(id) {
  let after = '0';
  for (let tries = 0; tries < 20; tries += 1) {
    try {
      const reply = await fetch(`${base}/v1/jobs/${id}/events`, { headers: { ...headers, 'last-event-id': after } });
      if (!reply.ok) throw new Error((await reply.json()).error.message, { cause: 'refused' });
      for await (const { event, id: place, data } of eventsIn(reply.body)) {
        if (event === 'end') return;
        if (event === 'error') throw new Error(JSON.parse(data).error.message, { cause: 'refused' });
        if (event !== 'delta') continue;
        yield JSON.parse(data).text;
        after = place;
      }
    } catch (error) {
      if (error.cause === 'refused') throw error;
    }
    await new Promise((done) => setTimeout(done, 200)); // the connection broke: go on from there
  }
  throw new Error('the gateway cannot be reached');
}

const id = await submit(process.argv[2] ?? 'Tell me a story about tides.');
for await (const text of pieces(id)) process.stdout.write(text);
process.stdout.write('\n');
