import * as z from 'zod';

const dayMs = 24 * 3600 * 1000;

export function retention() {
  const points = (what: string) => z.int().min(0).max(100_000).default(0).describe(what);
  return z
    .strictObject({
      last: points('So many of the newest points.'),
      hourly: points('The newest point of each of the last so many hours that have one (UTC).'),
      daily: points('The same for days.'),
      weekly: points('The same for weeks, which begin on Monday.'),
      monthly: points('The same for months.'),
      yearly: points('The same for years.'),
      withinDays: z.number().min(0).max(36_500).default(0).describe('Every point that is younger.'),
    })
    .refine((one) => Object.values(one).some((count) => count > 0), 'keeps nothing: say what to keep')
    .transform(({ withinDays, ...counts }) => ({ ...counts, withinMs: withinDays * dayMs }));
}

type Retention = z.output<ReturnType<typeof retention>>;

interface Group {
  readonly name: string;
  readonly machines: readonly string[];
  readonly retention: Retention;
}

/** The machine's own before its group's before that of all, and which of them it is. */
export function retentionOf(
  machine: { readonly name: string; readonly retention: Retention | null },
  groups: readonly Group[],
  ofAll: Retention | null,
): { readonly retention: Retention | null; readonly group: string | null; readonly retentionFrom: RetentionFrom } {
  const group = groups.find(({ machines }) => machines.includes(machine.name)) ?? null;
  const retentionFrom = machine.retention !== null ? 'machine' : group !== null ? 'group' : 'all';
  return { retention: machine.retention ?? group?.retention ?? ofAll, group: group?.name ?? null, retentionFrom };
}

export type RetentionFrom = 'machine' | 'group' | 'all';
