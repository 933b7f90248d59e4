import { formatSpread, median, secondsOf } from '../spread.ts';
import { lineOf } from '../table.ts';
import { type CopyRow, copySteps } from './measure-libvirt.ts';

const titles = [
  'step',
  'program',
  'seconds',
  'CPU seconds',
  'of QEMU and the store',
  'stored MiB',
  '× ours on S3',
  '× ours in a folder',
];
const references = ['failkit, S3', 'failkit, folder'] as const;

export function copyTable(rows: readonly CopyRow[]): readonly string[] {
  const programs = [...new Set(rows.map(({ program }) => program))].sort();
  return [
    lineOf(titles),
    lineOf(titles.map(() => '---')),
    ...copySteps.flatMap((step) =>
      programs.map((program) => {
        const of = (name: string) => rows.filter((row) => row.step === step && row.program === name);
        const own = of(program);
        const wall = (some: readonly CopyRow[]) => median(some.map(({ wallMs }) => wallMs));
        return lineOf([
          ...[step, program],
          ...(['wallMs', 'cpuMs', 'serverCpuMs'] as const).map((time) =>
            formatSpread(secondsOf(own.map((row) => row[time]))),
          ),
          (median(own.map(({ storedBytes }) => storedBytes)) / 2 ** 20).toFixed(0),
          ...references.map((reference) => (wall(own) / wall(of(reference))).toFixed(2)),
        ]);
      }),
    ),
  ];
}
