import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bytesOf } from '../vhdx/memory-file.ts';
import { fileOf, type ModelDisk, type ModelFile } from './model-disk.ts';
import { ModelHost } from './model-host.ts';

/** The model in a folder, so that a worker that is a process of its own, the next one, and a test all have the same. */

export interface StoredModel {
  readonly host: ModelHost;
  /** At so many questions from now the agent is killed, before or after what is asked for happens; 0: it is not. */
  killAt: number;
  happens: boolean;
  /** What was asked, in order. */
  asked: string[];
}

export function loadModel(folder: string): StoredModel {
  const file = join(folder, 'model.json');
  if (!existsSync(file)) return { host: new ModelHost(folder), killAt: 0, happens: false, asked: [] };
  const { disks, numbers, killAt, happens, asked, ...rest } = JSON.parse(readFileSync(file, 'utf8'));
  const host = new ModelHost(folder, numbers);
  Object.assign(host, rest);
  host.disks = disks.map((disk: Omit<ModelDisk, 'content'>) => ({
    ...disk,
    content: readFileSync(contentFile(folder, disk.key, disk.writes)),
    frozen: disk.frozen.map((each) => ({ ...each, content: readFileSync(contentFile(folder, disk.key, each.writes)) })),
  }));
  return { host, killAt, happens, asked };
}

export function saveModel({ host, killAt, happens, asked }: StoredModel): void {
  const { folder, disks, checkpoints, points, jobs, merging, manners } = host;
  mkdirSync(folder, { recursive: true });
  const without = <Held extends { readonly content: Buffer }>({ content: _, ...rest }: Held) => rest;
  const bare = disks.map((disk) => ({ ...without(disk), frozen: disk.frozen.map(without) }));
  const state = { disks: bare, numbers: host.numbers, checkpoints, points, jobs, merging, manners };
  for (const disk of disks) saveFiles(folder, disk);
  const file = join(folder, 'model.json');
  writeFileSync(`${file}.next`, JSON.stringify({ ...state, killAt, happens, asked }));
  renameSync(`${file}.next`, file);
}

function saveFiles(folder: string, disk: ModelDisk): void {
  const keep = ({ content, writes }: Pick<ModelFile, 'content' | 'writes'>): void => {
    const file = contentFile(folder, disk.key, writes);
    if (!existsSync(file)) writeFileSync(file, content);
  };
  keep(disk);
  // Its active file is locked by the machine that runs: nobody could read it.
  rmSync(disk.leaf.path, { force: true });
  for (const file of disk.frozen) {
    keep(file);
    if (!existsSync(file.path)) writeFileSync(file.path, bytesIn(disk, file.path));
  }
}

function bytesIn(disk: ModelDisk, path: string): Uint8Array {
  const made = fileOf(disk, path);
  return made === null ? new Uint8Array() : bytesOf(made);
}

function contentFile(folder: string, key: string, writes: number): string {
  return join(folder, `content-${key.replaceAll('\\', '-')}-${writes}`);
}
