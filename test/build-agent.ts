/**
 * Before all tests: builds the agent as its users run it, unless that was done since its sources changed, and lets Node keep what it
 * compiles. Tests start hundreds of processes and thousands of threads; from sources, each would take several times the CPU time.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
const folder = join(root, 'dist/agent');
const sources = [
  'agent',
  'crypto',
  'drill',
  'hypervisors',
  'replica',
  'restore',
  'storage-targets',
  'rolldown.config.ts',
  'package-lock.json',
];

export function setup(): void {
  process.env.NODE_COMPILE_CACHE ??= join(root, 'node_modules/.cache/compiled-by-node');
  const builtMs = modifiedMs(join(folder, 'main.js'));
  if (sources.flatMap(filesIn).some((file) => modifiedMs(file) >= builtMs)) build();
}

function filesIn(name: string): readonly string[] {
  const path = join(root, name);
  if (statSync(path).isFile()) return [path];
  const entries = readdirSync(path, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

/** 0 where there is no such file. */
function modifiedMs(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

/** Beside the last one, which other tests may be starting at this moment. */
function build(): void {
  const [next, last] = [`${folder}.next-${process.pid}`, `${folder}.last-${process.pid}`];
  const rolldown = join(root, 'node_modules/rolldown/bin/cli.mjs');
  const { status, stderr } = spawnSync(process.execPath, [rolldown, '-c', 'rolldown.config.ts', '--dir', next], {
    cwd: root,
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`the agent was not built: ${stderr}`);
  if (existsSync(folder)) renameSync(folder, last);
  renameSync(next, folder);
  rmSync(last, { recursive: true, force: true });
}
