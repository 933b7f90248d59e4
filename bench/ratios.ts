import type { Compression } from './contestants/contestant.ts';
import type { Row, Step } from './race.ts';

/** How many times as long as ours another program takes: what a change must not worsen, on whatever machine it is measured. */

export interface Ratio {
  readonly step: Step;
  readonly compression: Compression;
  readonly against: string;
  /** Of wall time: their shortest run over our shortest; null where no run had the machine for itself. */
  readonly wall: number | null;
  /** Of CPU time, the servers' left out. */
  readonly cpu: number;
}

const ours = 'failkit';
/** Where others take more of the cores than this, a wall time is theirs as well. */
const disturbedShare = 0.1;
/** A ratio may be this much smaller than what was recorded. */
const regressionMax = 0.25;

/**
 * Of the shortest runs, because what disturbs a run on a busy machine only ever makes it longer. So more rounds come nearer to the
 * truth, from both sides; they do not make a good result likelier.
 */
export function ratiosOf(rows: readonly Row[]): readonly Ratio[] {
  const keys = new Map(rows.filter(isTheirs).map((row) => [keyOf({ ...row, against: row.contestant }), row]));
  return [...keys.values()].map(({ step, compression, contestant }) => {
    const same = rows.filter((row) => row.step === step && row.compression === compression);
    const times = (name: string, kind: Kind) =>
      same
        .filter((row) => row.contestant === name && (kind === 'cpu' || row.othersShare <= disturbedShare))
        .map((row) => (kind === 'cpu' ? row.cpuMs : row.wallMs));
    const ratio = (kind: Kind) => Math.min(...times(contestant, kind)) / Math.min(...times(ours, kind));
    const calm = times(contestant, 'wall').length > 0 && times(ours, 'wall').length > 0;
    return { step, compression, against: contestant, wall: calm ? ratio('wall') : null, cpu: ratio('cpu') };
  });
}

type Kind = 'wall' | 'cpu';

/**
 * In words; empty when all is well. A ratio that was recorded and not measured is a regression, unless its program is `absent`; one
 * of wall time that could not be measured is none.
 */
export function regressions(
  recorded: readonly Ratio[],
  measured: readonly Ratio[],
  absent: readonly string[] = [],
): readonly string[] {
  return pairsOf(recorded, measured, absent).flatMap(({ expected, found }) => {
    if (found === undefined) return [`${keyOf(expected)}: was not measured`];
    return (['wall', 'cpu'] as const).flatMap((kind) => {
      const [now, before] = [found[kind], expected[kind]];
      if (now === null || before === null || now >= before * (1 - regressionMax)) return [];
      return [`${keyOf(expected)}, ${kind}: ${now.toFixed(2)}, recorded ${before.toFixed(2)}`];
    });
  });
}

/** Ratios of wall time that nothing can be said about, because others kept the machine busy, now or when they were recorded. */
export function disturbed(
  recorded: readonly Ratio[],
  measured: readonly Ratio[],
  absent: readonly string[] = [],
): readonly string[] {
  return pairsOf(recorded, measured, absent)
    .filter(({ expected, found }) => expected.wall === null || found?.wall === null)
    .map(({ expected }) => keyOf(expected));
}

function pairsOf(recorded: readonly Ratio[], measured: readonly Ratio[], absent: readonly string[]) {
  return recorded
    .filter(({ against }) => !absent.includes(against))
    .map((expected) => ({ expected, found: measured.find((ratio) => keyOf(ratio) === keyOf(expected)) }));
}

function isTheirs({ contestant }: Row): boolean {
  return contestant !== ours;
}

function keyOf({ step, compression, against }: Pick<Ratio, 'step' | 'compression' | 'against'>): string {
  return `${step} (${compression}) beside ${against}`;
}
