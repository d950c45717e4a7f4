/** A real mesh: `memharvest up` on free ports, and further gateways of it that a test may stop and start. */

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const HERE = dirname(fileURLToPath(import.meta.url));
export const ROOT = resolve(HERE, '../../..');
const PROGRAMS = process.env.DASHBOARD_TEST_PROGRAMS ?? join(process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target'), 'debug');

/** Settings of whoever runs the tests are not those of the mesh. */
const ENVIRONMENT = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('MEMHARVEST_')));

/** What a process has said, and how to end it. */
export interface Running {
  url: string;
  stop: () => Promise<void>;
}

export interface Mesh extends Running {
  /** Another gateway of the same mesh. */
  gateway: (flags: string[], address?: string) => Promise<Running>;
  /** Stops one of its programs from running, without ending it; what comes back lets it run on. */
  freeze: (program: string) => () => void;
  /** A token of the registry. */
  token: (name: string, role: 'viewer' | 'operator' | 'admin') => Promise<string>;
}

/** Starts a mesh and waits until its gateway knows hosts. `before`: a command that starts it, such as `nice`. */
export async function startMesh(flags: string[], before: string[] = []): Promise<Mesh> {
  const data = mkdtempSync(join(tmpdir(), 'memharvest-dashboard-'));
  const [program = '', ...args] = [...before, join(PROGRAMS, 'memharvest'), 'up', '--ephemeral-ports', '--data-dir', data, '--log-filter', 'warn', ...flags];
  const child = spawn(program, args, { env: ENVIRONMENT });
  const said = collect(child);
  const url = await until('the mesh to come up', () => {
    ended(child, 'memharvest up', said);
    return /gateway\s+(http:\/\/\S+)/.exec(said.text)?.[1];
  });
  const command = argumentsOf(new URL(url).host);
  await until('hosts to be known', async () => ((await json(`${url}/api/v1/fleet`)) as { hosts: number }).hosts > 0 || undefined);
  return {
    url,
    stop: async () => {
      await stop(child);
      rmSync(data, { recursive: true, force: true });
    },
    freeze: (program) => {
      const pid = childOf(child.pid, program);
      process.kill(pid, 'SIGSTOP');
      return () => process.kill(pid, 'SIGCONT');
    },
    gateway: (more, address) => startGateway(command, more, address),
    token: async (name, role) => {
      const answer = await fetch(`${url}/api/v1/tokens`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ name, role, author: 'tests' }),
      });
      return ((await answer.json()) as { secret: string }).secret;
    },
  };
}

async function startGateway(command: string[], flags: string[], address?: string): Promise<Running> {
  const listen = address ?? `127.0.0.1:${await freePort()}`;
  const own = ['--listen', '--admin-listen', '--gateway-id', '--advertise'];
  const kept = command.slice(1).filter((word, index, words) => {
    const before = words[index - 1] ?? '';
    return !own.some((name) => word === name || word.startsWith(`${name}=`) || before === name);
  });
  const child = spawn(command[0] ?? '', [...kept, `--listen=${listen}`, '--admin-listen=127.0.0.1:0', ...flags], { env: ENVIRONMENT });
  const said = collect(child);
  const url = `http://${listen}`;
  await until('a gateway to be ready', async () => {
    ended(child, 'memharvest-gateway', said);
    return (await fetch(`${url}/readyz`)).ok || undefined;
  });
  return { url, stop: () => stop(child) };
}

/** How `up` started its gateway, found by where it listens. */
function argumentsOf(listen: string): string[] {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    let words: string[] = [];
    try {
      words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
    } catch {
      // It has ended meanwhile.
    }
    if (words[0]?.endsWith('memharvest-gateway') && words.some((word) => word.includes(listen))) return words;
  }
  throw new Error(`no gateway listens on ${listen}`);
}

/** A process that `up` has started. */
function childOf(parent: number | undefined, program: string): number {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const [, above] = /\) \S+ (\d+) /.exec(readFileSync(`/proc/${pid}/stat`, 'utf8')) ?? [];
      const name = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')[0] ?? '';
      if (Number(above) === parent && name.endsWith(program)) return Number(pid);
    } catch {
      // It has ended meanwhile.
    }
  }
  throw new Error(`no ${program} runs`);
}

function collect(child: ChildProcess): { text: string } {
  const said = { text: '' };
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk: Buffer) => (said.text += chunk.toString()));
  child.on('error', (error) => (said.text += error.message));
  return said;
}

function ended(child: ChildProcess, name: string, said: { text: string }): void {
  if (child.exitCode !== null || (child.pid === undefined && said.text !== '')) throw new Error(`${name} ended: ${said.text}`);
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const gone = new Promise((done) => child.once('exit', done));
  child.kill('SIGTERM');
  await gone;
}

export async function json(url: string): Promise<unknown> {
  return (await fetch(url)).json();
}

/** Reserves memory on the host that can lend most; `undefined`: none can yet. */
export async function lease(url: string, holder: string): Promise<true | undefined> {
  const { hosts } = (await json(`${url}/api/v1/hosts`)) as { hosts: { host: string; harvestable_bytes: number | null }[] };
  const [most] = hosts.sort((a, b) => (b.harvestable_bytes ?? 0) - (a.harvestable_bytes ?? 0));
  const answer = await fetch(`${url}/api/v1/leases`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ host: most?.host, bytes: 64 * 2 ** 20, ttl: '30m', holder }),
  });
  return answer.ok || undefined;
}

/** Asks until there is an answer; a failed attempt is no answer. */
export async function until<T>(what: string, ask: () => T | undefined | Promise<T | undefined>, seconds = 60): Promise<T> {
  const deadline = Date.now() + seconds * 1000;
  let last: unknown;
  while (Date.now() < deadline) {
    try {
      const found = await ask();
      if (found !== undefined) return found;
    } catch (error) {
      last = error;
      if (error instanceof Error && / ended: /.test(error.message)) throw error;
    }
    await new Promise((done) => setTimeout(done, 100));
  }
  throw new Error(`waited ${seconds} s for ${what}${last instanceof Error ? `: ${last.message}` : ''}`);
}

/** A port that nobody has at the moment. */
export function freePort(): Promise<number> {
  return new Promise((done, fail) => {
    const server = createServer();
    server.once('error', fail);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => (address && typeof address === 'object' ? done(address.port) : fail(new Error('no port'))));
    });
  });
}
