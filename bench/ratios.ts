import type { Compression } from './contestants/contestant.ts';
import type { Row, Step } from './race.ts';

/** How many times as long as ours another program takes: what a change must not worsen, on whatever machine it is measured. */

export interface Ratio {
  readonly step: Step;
  readonly compression: Compression;
  readonly against: string;
  /** Of wall time: their shortest run over our shortest. */
  readonly wall: number;
  /** Of CPU time, the servers' left out. */
  readonly cpu: number;
}

const ours = 'failkit';
/** A ratio may be this much smaller than what was recorded. */
export const regressionMax = 0.25;

/**
 * Of the shortest runs, because what disturbs a run on a busy machine only ever makes it longer. So more rounds come nearer to the
 * truth, from both sides; they do not make a good result likelier.
 */
export function ratiosOf(rows: readonly Row[]): readonly Ratio[] {
  const keys = new Map(rows.filter(isTheirs).map((row) => [keyOf({ ...row, against: row.contestant }), row]));
  return [...keys.values()].map(({ step, compression, contestant }) => {
    const of = (name: string, time: 'wallMs' | 'cpuMs') =>
      Math.min(
        ...rows
          .filter((row) => row.step === step && row.compression === compression && row.contestant === name)
          .map((row) => row[time]),
      );
    const ratio = (time: 'wallMs' | 'cpuMs') => of(contestant, time) / of(ours, time);
    return { step, compression, against: contestant, wall: ratio('wallMs'), cpu: ratio('cpuMs') };
  });
}

/** In words; empty when all is well. A ratio that was recorded and not measured is a regression, unless its program is `absent`. */
export function regressions(
  recorded: readonly Ratio[],
  measured: readonly Ratio[],
  absent: readonly string[] = [],
): readonly string[] {
  return recorded
    .filter(({ against }) => !absent.includes(against))
    .flatMap((expected) => {
      const found = measured.find((ratio) => keyOf(ratio) === keyOf(expected));
      if (found === undefined) return [`${keyOf(expected)}: was not measured`];
      return (['wall', 'cpu'] as const)
        .filter((kind) => !(found[kind] >= expected[kind] * (1 - regressionMax)))
        .map((kind) => `${keyOf(expected)}, ${kind}: ${found[kind].toFixed(2)}, recorded ${expected[kind].toFixed(2)}`);
    });
}

function isTheirs({ contestant }: Row): boolean {
  return contestant !== ours;
}

function keyOf({ step, compression, against }: Pick<Ratio, 'step' | 'compression' | 'against'>): string {
  return `${step} (${compression}) beside ${against}`;
}
