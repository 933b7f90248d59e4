import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Compression } from './contestants.ts';

/** Medians side by side, and how many times as long each takes as the agent. */

export interface Row {
  readonly contestant: string;
  readonly compression: Compression;
  readonly step: 'seed' | 'resync' | 'restore';
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly storedBytes: number;
}

const ours = 'failkit';

export function tableOf(rows: readonly Row[], median: (values: readonly number[]) => number): readonly string[] {
  const keys = [...new Set(rows.map(({ step, compression }) => `${step} ${compression}`))].sort();
  const lines = [
    '| step | compression | program | seconds | CPU seconds | stored MiB | × as long as failkit |',
    '|---|---|---|---|---|---|---|',
  ];
  for (const key of keys) {
    const [step, compression] = key.split(' ');
    const of = (name: string) =>
      rows.filter((row) => row.step === step && row.compression === compression && row.contestant === name);
    const base = median(of(ours).map(({ wallMs }) => wallMs));
    for (const name of new Set(rows.map(({ contestant }) => contestant))) {
      const own = of(name);
      const wallMs = median(own.map((row) => row.wallMs));
      const cpuMs = median(own.map((row) => row.cpuMs));
      const stored = median(own.map(({ storedBytes }) => storedBytes)) / 2 ** 20;
      const cells = [
        (wallMs / 1000).toFixed(1),
        (cpuMs / 1000).toFixed(1),
        stored.toFixed(0),
        (wallMs / base).toFixed(2),
      ];
      lines.push(`| ${[step, compression, name, ...cells].join(' | ')} |`);
    }
  }
  return lines;
}

export function bytesBelow(folder: string): number {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return files.reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
}
