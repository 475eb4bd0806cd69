// Passes what it is asked on to a gateway elsewhere, with the token of somebody whom that knows: the suite knows of no
// credentials, and asks by a name of this machine. It runs beside the suite, in a thread of its own (suite.mjs).

import { createServer, request } from 'node:http';
import { parentPort, workerData } from 'node:worker_threads';

const { gateway, token } = workerData;

const server = createServer((asked, answer) => {
  const headers = { ...asked.headers, authorization: `Bearer ${token}` };
  const passed = request(new URL(asked.url, gateway), { method: asked.method, headers }, (got) => {
    answer.writeHead(got.statusCode, got.headers);
    // What is streamed may say nothing for a while.
    answer.flushHeaders();
    got.once('error', () => answer.destroy());
    got.pipe(answer);
  });
  passed.once('error', (cause) => {
    if (answer.headersSent) return answer.destroy();
    answer.writeHead(502).end(String(cause));
  });
  // Whoever went away is not answered.
  answer.once('close', () => answer.writableFinished || passed.destroy());
  asked.pipe(passed);
});
// A stream lasts for as long as somebody listens.
server.requestTimeout = 0;
server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port));
