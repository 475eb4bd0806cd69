// Runs the conformance suite of the protocol against the gateway, and says what came of it.
//
//   node suite.mjs --example PROGRAM --packages DIR [--server URL] [--write]
//   node suite.mjs --gateway URL --token-file FILE --packages DIR [--write]
//
// PROGRAM is the built example `conformance`, DIR the folder whose node_modules has the suite (package.json beside this
// file). With --server the gateway stands before that server instead of the example's own. With --write the results are
// kept in report.json and report.md beside this file. `cargo xtask e2e conformance` does all of it.
//
// With --gateway it is a gateway in a cluster, which has the server of the example as `conformance` and, asked in the way
// of before 2026-07-28 alone, as `conformance-sessions`, and knows the token of FILE; the results are then those of
// report-kubernetes.json and .md. `cargo xtask e2e mcp` does all of that.
//
// Ends with 1 when a scenario fails that expected-failures.json does not name, or one does not that it names.

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';

const here = dirname(fileURLToPath(import.meta.url));
const { values: told } = parseArgs({
  options: {
    example: { type: 'string' },
    packages: { type: 'string' },
    server: { type: 'string' },
    gateway: { type: 'string' },
    'token-file': { type: 'string' },
    write: { type: 'boolean', default: false },
  },
});
const modules = join(told.packages, 'node_modules');
const node = join(modules, '.bin', 'node');
const suite = join(modules, '@modelcontextprotocol', 'conformance');
/** The name of the report. */
const kept = told.gateway ? 'report-kubernetes' : 'report';
const version = JSON.parse(readFileSync(join(suite, 'package.json'), 'utf8')).version;

/** Names below a heading of a requirement set, which is a plain list. */
function required(revision, heading) {
  const lines = readFileSync(join(suite, 'requirements', `${revision}.yaml`), 'utf8').split('\n');
  const from = lines.indexOf(`${heading}:`) + 1;
  const to = lines.findIndex((line, at) => at >= from && /^\S/.test(line) && !line.startsWith('#'));
  const part = lines.slice(from, to < 0 ? undefined : to);
  return part.filter((line) => line.startsWith('  - ')).map((line) => line.slice(4).trim());
}

/** All folders with results below one, by the scenario that they are of. */
function results(folder, prefix) {
  const found = new Map();
  const visit = (at, name) => {
    for (const entry of readdirSync(at)) {
      const path = join(at, entry);
      if (!statSync(path).isDirectory()) continue;
      const whole = name ? `${name}/${entry}` : entry;
      if (existsSync(join(path, 'checks.json'))) {
        const scenario = whole.replace(/-\d{4}-\d\d-\d\dT[\d-]+Z$/, '').slice(prefix.length);
        found.set(scenario, JSON.parse(readFileSync(join(path, 'checks.json'), 'utf8')));
      } else {
        visit(path, whole);
      }
    }
  };
  visit(folder, '');
  return found;
}

/** Runs a requirement set; what came of each of its scenarios. */
function run({ name, leg, revision, words }) {
  const folder = mkdtempSync(join(tmpdir(), 'conformance-'));
  try {
    const command = [join(suite, 'dist', 'index.js'), leg, ...words, '--requirements', revision, '-o', folder];
    const ended = spawnSync(node, command, { encoding: 'utf8', timeout: 480_000, maxBuffer: 64 << 20 });
    if (ended.error) throw ended.error;
    const scored = new Set(required(revision, leg));
    const found = results(folder, leg === 'server' ? 'server-' : '');
    const scenarios = [...new Set([...scored, ...found.keys()])].map((scenario) => {
      const checks = found.get(scenario) ?? [];
      const count = (status) => checks.filter((check) => check.status === status).length;
      const failed = checks.filter((check) => check.status === 'FAILURE');
      // A scenario that left nothing behind was not passed.
      const why = checks.length === 0 ? ['no results'] : failed.map((check) => `${check.id}: ${check.errorMessage ?? ''}`);
      return {
        scenario,
        required: scored.has(scenario),
        passed: count('SUCCESS'),
        failed: checks.length === 0 ? 1 : failed.length,
        warnings: count('WARNING'),
        why: why.map((text) => text.replace(/localhost:\d+|127\.0\.0\.1:\d+/g, 'HOST').slice(0, 300)),
      };
    });
    return { name, leg, revision, scenarios };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Starts the example and waits until it says where it serves. */
async function serve() {
  const child = spawn(told.example, ['serve', ...(told.server ? [told.server] : [])], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const first = await new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).once('line', resolve);
    child.once('exit', (code) => reject(new Error(`${told.example} ended with ${code}`)));
  });
  return { at: JSON.parse(first), end: () => child.stdin.end() };
}

/** Waits until a gateway knows a server: it is told of it a moment after its pod is ready. */
async function known(url) {
  const clientInfo = { name: 'conformance', version: '1' };
  const params = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo };
  const body = JSON.stringify({ jsonrpc: '2.0', id: 0, method: 'initialize', params });
  const headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
  for (const until = Date.now() + 60_000; ; await sleep(500)) {
    const answer = await fetch(url, { method: 'POST', headers, body });
    const text = await answer.text();
    if (answer.ok) return;
    if (Date.now() > until) throw new Error(`${url} answers ${answer.status}: ${text}`);
  }
}

/** Stands before the gateway in a cluster; where its servers are. */
async function stand() {
  const workerData = { gateway: told.gateway, token: readFileSync(told['token-file'], 'utf8').trim() };
  const worker = new Worker(new URL('./admit.mjs', import.meta.url), { workerData });
  const port = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  const server = (name) => `http://127.0.0.1:${port}/servers/${name}/mcp`;
  const at = { gateway: server('conformance'), gateway_to_sessions: server('conformance-sessions') };
  const end = () => worker.terminate();
  try {
    await Promise.all(Object.values(at).map(known));
  } catch (cause) {
    await end();
    throw cause;
  }
  return { at, end };
}

function judged(done, expected) {
  const faults = [];
  for (const { name, revision, scenarios } of done) {
    const known = expected[`${name} ${revision}`] ?? {};
    for (const { scenario, required: isRequired, failed, why } of scenarios) {
      if (failed > 0 && isRequired && !(scenario in known)) faults.push(`${name} ${revision} ${scenario}: ${why.join('; ')}`);
      if (failed === 0 && scenario in known) faults.push(`${name} ${revision} ${scenario} passes; take it out of expected-failures.json`);
    }
  }
  return faults;
}

function table(done) {
  const rows = done.map(({ name, leg, revision, scenarios }) => {
    const needed = scenarios.filter((one) => one.required);
    const passed = needed.filter((one) => one.failed === 0);
    const sum = (of, key) => of.reduce((total, one) => total + one[key], 0);
    const others = scenarios.filter((one) => !one.required);
    const more = `${others.filter((one) => one.failed === 0).length} of ${others.length}`;
    const checks = `${sum(needed, 'passed')} / ${sum(needed, 'failed')} / ${sum(needed, 'warnings')}`;
    return `| ${name} | ${leg} | ${revision} | **${passed.length} of ${needed.length}** | ${checks} | ${more} |`;
  });
  return [
    '| what | leg | revision | required scenarios passed | their checks: passed / failed / warned | others passed |',
    '|---|---|---|---|---|---|',
    ...rows,
  ].join('\n');
}

function report(done, expected) {
  const failing = done.flatMap(({ name, revision, scenarios }) =>
    scenarios
      .filter((one) => one.failed > 0)
      .map((one) => {
        const reason = expected[`${name} ${revision}`]?.[one.scenario];
        const why = reason ?? (one.required ? one.why.join('; ') : 'not required');
        return `| ${name} | ${revision} | ${one.scenario} | ${why.replaceAll('|', '\\|')} |`;
      }),
  );
  const where = told.gateway ? ', on Kubernetes' : '';
  const fixture = '[examples/conformance](../examples/conformance/fixture.rs)';
  const server = told.gateway
    ? `- The gateway is two replicas behind a service, and the server, that of ${fixture}, a pod of the operator.`
    : `- *fixture* is the server of ${fixture}, asked directly.`;
  const client = told.gateway
    ? ''
    : '- *client* is a client behind the gateway, so that the suite judges what the gateway sends.\n';
  return `# The gateway under the protocol's conformance suite${where}

@modelcontextprotocol/conformance ${version}, its requirement sets of both revisions. Made by
\`cargo xtask e2e ${told.gateway ? 'mcp' : 'conformance'} --write\`; all checks are in [${kept}.json](${kept}.json).

${table(done)}

${server}
- *gateway* has the gateway between, which speaks the same revision to the server.
- *bridge* has the gateway between, which speaks the other revision to the server: no set of requirements asks for it.
${client}
What failed, and why that is expected ([expected-failures.json](expected-failures.json)) or not required:

| what | revision | scenario | why |
|---|---|---|---|
${failing.join('\n')}
`;
}

const expected = JSON.parse(readFileSync(join(here, 'expected-failures.json'), 'utf8'));
const { at, end } = await (told.gateway ? stand() : serve());
try {
  const [modern, sessions] = ['2026-07-28', '2025-11-25'];
  const server = (name, revision, url) => ({ name, leg: 'server', revision, words: ['--url', url] });
  const client = (revision) => ({ name: 'client', leg: 'client', revision, words: ['--command', `${told.example} client`] });
  const ofGateway = [
    server('gateway', modern, at.gateway),
    server('gateway', sessions, at.gateway_to_sessions),
    server('bridge', modern, at.gateway_to_sessions),
    server('bridge', sessions, at.gateway),
  ];
  const ofExample = () => [server('fixture', modern, at.server), server('fixture', sessions, at.server)];
  const runs = told.gateway ? ofGateway : [...ofExample(), ...ofGateway, client(modern), client(sessions)];
  const done = runs.map(run);
  console.log(table(done));
  if (told.write) {
    writeFileSync(join(here, `${kept}.json`), `${JSON.stringify({ suite: version, runs: done }, null, 1)}\n`);
    writeFileSync(join(here, `${kept}.md`), report(done, expected));
  }
  // Another server's failures are not the gateway's, and nobody has said which to expect.
  const faults = told.server ? [] : judged(done, expected);
  faults.forEach((fault) => console.error(fault));
  process.exitCode = faults.length > 0 ? 1 : 0;
} finally {
  await end();
}
