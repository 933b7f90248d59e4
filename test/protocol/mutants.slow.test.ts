import { describe, expect, it } from 'vitest';
import { type Mutant, mutants } from './mutants.ts';
import { loadVariant, smallNumbers } from './variants.ts';

const runsMax = 1_500;
const timeoutMs = 120_000;

/** The first seed under which the mutant does a harm of the kind that its rule prevents. */
async function firstHarm({ edits = [], misdeeds = [], shows }: Mutant): Promise<string | null> {
  await using variant = await loadVariant([...smallNumbers, ...edits]);
  for (let seed = 1; seed <= runsMax; seed++) {
    const { violation } = await variant.simulate(seed, misdeeds);
    if (violation !== null && shows.includes(violation.kind)) return `seed ${seed}: ${violation.message}`;
  }
  return null;
}

describe('a protocol with one rule broken is caught', () => {
  it.each(mutants.map((mutant) => [mutant.rule, mutant.name, mutant] as const))(
    '%s: %s',
    { timeout: timeoutMs },
    async (_rule, _name, mutant) => {
      expect(await firstHarm(mutant)).not.toBeNull();
    },
  );

  it('and every rule that a machine can break has a mutant', () => {
    const rules = new Set(mutants.map(({ rule }) => rule));
    for (const rule of ['R1', 'R2', 'R3', 'R4', 'R5', 'R6', 'R7', 'R8', 'R9', 'P6', 'lock', 'floor', 'copy'])
      expect(rules).toContain(rule);
  });
});
