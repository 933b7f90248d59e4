import type { MachineFinding } from '../../hypervisors/kvm/machine-finding.ts';
import { doubtful, type Verdict } from './finding.ts';

/** What stands in the way, or will; null where nothing does. */
export function worstOf(findings: readonly MachineFinding[]): Verdict | null {
  const worst = findings.some(({ level }) => level === 'failed') ? 'failed' : 'warning';
  const named = findings.filter(({ level }) => level === worst);
  if (named.length === 0) return null;
  const what = named.map((finding) => (finding.disk === null ? finding.what : `${finding.disk}: ${finding.what}`));
  const verdict = doubtful(what.join('; '), [...new Set(named.map(({ fix }) => fix))].join('; '));
  return { ...verdict, outcome: worst };
}
