import { formatSpread, median, secondsOf } from '../spread.ts';
import { lineOf } from '../table.ts';
import type { SyncRow } from './measure-sync.ts';

const titles = ['run', 'seconds', 'CPU seconds', 'of the server', 'more than the one before, of a seed'];
const order = ['seed', 'empty sync', 'sync of 1 %', 'sync of 2 %', 'restore'] as const;
const stepBefore = { 'sync of 1 %': 'empty sync', 'sync of 2 %': 'sync of 1 %' } as const;

export function syncTable(rows: readonly SyncRow[]): readonly string[] {
  return [
    lineOf(titles),
    lineOf(titles.map(() => '---')),
    ...order.map((step) => {
      const own = rows.filter((row) => row.step === step);
      const [changed = 0] = own.map(({ changedBlocks }) => changedBlocks);
      const name = changed === 0 ? step : `${step} (${changed} blocks, scattered)`;
      const spreads = (['wallMs', 'cpuMs', 'serverCpuMs'] as const).map((time) =>
        formatSpread(secondsOf(own.map((row) => row[time])), 2),
      );
      return lineOf([
        name,
        ...spreads,
        step === 'sync of 1 %' || step === 'sync of 2 %' ? variableCost(rows, step) : '',
      ]);
    }),
  ];
}

/** What the sync takes longer than the one with 1 % fewer blocks, beside the time of a seed. */
function variableCost(rows: readonly SyncRow[], step: keyof typeof stepBefore): string {
  const cost = (time: 'wallMs' | 'cpuMs'): string => {
    const of = (name: SyncRow['step']) => median(rows.filter((row) => row.step === name).map((row) => row[time]));
    return `${(((of(step) - of(stepBefore[step])) / of('seed')) * 100).toFixed(1)} %`;
  };
  return `${cost('wallMs')}; of CPU ${cost('cpuMs')}`;
}
